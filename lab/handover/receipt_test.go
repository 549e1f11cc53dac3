//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/server"
)

// TestServerReceipt has the server tell of a move what the client tells: why, by
// what, and the gap that it left in the data of each direction.
func TestServerReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		d := m.talk(r / 10)
		settle()
		m.host.Move("if0", w.cell)
		settle()
		st := w.server.Status()
		if len(st.Registrations) != 2 {
			t.Fatalf("registrations: %+v", st.Registrations)
		}
		first, move := st.Registrations[0], st.Registrations[1]
		if first.Client != "laptop" || first.Number != 1 || first.Trigger != "connect" || first.Encapsulation != "udp" || first.Verdict != "nat" {
			t.Errorf("first registration: %+v", first)
		}
		kind := server.Kind{Trigger: "address", Encapsulation: "udp", Verdict: "napt"}
		if move.Number != 2 || move.Kind != kind || !move.Moved || move.From == move.To || move.ResentPackets == 0 || move.ResentBytes == 0 {
			t.Errorf("the move: %+v", move)
		}
		// The server's data goes on with the request, the client's had no gap but the
		// half round trip that the new path is not shorter by.
		if move.GapOutMs < 0.9*ms(r/10) || move.GapOutMs > ms(2*r) || move.GapInMs < 0.9*ms(r/10) || move.GapInMs > ms(2*r) {
			t.Errorf("gaps of %.1f ms out and %.1f ms in", move.GapOutMs, move.GapInMs)
		}
		n := uint64(0)
		for _, c := range st.Totals.Registrations {
			if c.Kind == kind {
				n = c.Count
			}
		}
		if n != 1 || st.Totals.GapsOut.Count == 0 || st.Totals.Connected != 1 || st.Totals.PacketsResent < move.ResentPackets {
			t.Errorf("totals: %+v", st.Totals)
		}
		d.end()
	})
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
