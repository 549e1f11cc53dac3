//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestUDPPassesOneWay has UDP work in one direction alone, in place or where the
// client moves to. A short answer shall not be taken for a good path: both
// directions are back on TCP soon, and stay.
func TestUDPPassesOneWay(t *testing.T) {
	const r = 50 * time.Millisecond
	for _, tt := range []struct {
		name     string
		outbound bool // which direction is dead
		moves    bool
		limit    float64 // round trips until data moves again
	}{
		{"upload dead where it moves to", true, true, 2.1},
		{"download dead where it moves to", false, true, 12},
		{"upload dies in place", true, false, 13},
		{"download dies in place", false, false, 18},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, r)
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 10)
				settle()
				block := func(p lab.Packet) lab.Verdict {
					if p.Proto == lab.UDP && p.Outbound == tt.outbound {
						return lab.Drop
					}
					return lab.Pass
				}
				at := time.Now()
				if tt.moves {
					w.cell.SetFirewall(block)
					m.host.Move("if0", w.cell)
				} else {
					w.wifi.SetFirewall(block)
				}
				settle()
				p := m.client.Status().Path
				if p == nil || p.Encapsulation != "tcp" {
					t.Fatalf("path: %+v", p)
				}
				near, far := d.since(at.Add(r), at.Add(r))
				if near.IsZero() || far.IsZero() {
					t.Fatal("nothing arrives")
				}
				longest := func(at0 time.Time, ats []time.Time) (gap time.Duration) {
					d.mu.Lock()
					defer d.mu.Unlock()
					last := at0
					for _, a := range ats {
						if a.After(at0) {
							gap, last = max(gap, a.Sub(last)), a
						}
					}
					return gap
				}
				in, out := lab.Rounds(longest(at, d.nearAt), r), lab.Rounds(longest(at, d.farAt), r)
				t.Logf("silence of client data %.2f R, of server data %.2f R", out, in)
				if in > tt.limit || out > tt.limit {
					t.Errorf("silence of client data %.2f R, of server data %.2f R, want %v", out, in, tt.limit)
				}
				d.end()
			})
		})
	}
}
