//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestOverlap has two networks up at once and loses the one in use. The other
// is registered already: the client's data goes on with no gap, and the server's
// after what the news of it takes.
func TestOverlap(t *testing.T) {
	for _, tt := range []struct {
		name     string
		firewall lab.Firewall // of the second network
		lose     func(w *world, m *mobile)
		trigger  string
		onto     string
		out, in  float64 // round trips
	}{
		{"cut", nil, func(_ *world, m *mobile) { m.host.Detach("if0") }, "address", "udp", 0.1, 1.1},
		{"cut, only tls at the second", lab.OnlyTLS443, func(_ *world, m *mobile) { m.host.Detach("if0") }, "address", "websocket", 0.1, 1.1},
		{"routes change, then cut", nil, func(_ *world, m *mobile) {
			m.host.Prefer("if1")
			time.Sleep(3 * overlapTrip)
			m.host.Detach("if0")
		}, "address", "udp", 0.1, 0.1},
		// Noticed by the larger of three round trips and 300 ms; a probe takes
		// one of them.
		{"black hole", nil, func(w *world, _ *mobile) { w.wifi.SetFirewall(lab.DropAll) }, "silence", "udp", 5.2, 6.2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = overlapTrip
				w := newWorld(t, r)
				defer w.close()
				w.cell.SetFirewall(tt.firewall)
				m := w.join("mobile", 2)
				d := m.talk(r / 20)
				settle()
				m.host.Attach("if1", w.cell)
				settle()
				before := m.client.Status()
				if got := last(before); got.Trigger != "standby" || !got.Done || before.Path.Verdict != "nat" || before.Standby == nil || before.Standby.Encapsulation != tt.onto {
					t.Fatalf("standby %+v, path %+v, last registration %+v", before.Standby, before.Path, got)
				}
				at := time.Now()
				tt.lose(w, m)
				settle()
				out, in := d.silence(at)
				after := m.client.Status()
				t.Logf("silence at the server %.2f R, at the client %.2f R; %d packets sent again", lab.Rounds(out, r), lab.Rounds(in, r), after.PacketsResent-before.PacketsResent)
				if lab.Rounds(out, r) > tt.out || lab.Rounds(in, r) > tt.in {
					t.Errorf("want %.1f and %.1f", tt.out, tt.in)
				}
				if after.Path == nil || after.Path.Verdict == "nat" || after.Path.Encapsulation != tt.onto {
					t.Errorf("path after it: %+v", after.Path)
				}
				got := after.Registrations[len(before.Registrations)]
				if got.Trigger != tt.trigger || got.Selected != tt.onto {
					t.Errorf("then %+v", got)
				}
				// What the client itself has measured agrees, as far as it can see.
				if gap := time.Duration(got.GapInMs*float64(time.Millisecond)) - r/20; (gap-in).Abs() > time.Millisecond || got.ResentPackets > after.PacketsResent-before.PacketsResent {
					t.Errorf("timeline: gap %v, %d packets sent again, want %v and %d", gap, got.ResentPackets, in, after.PacketsResent-before.PacketsResent)
				}
				if near, far := d.end(); near == 0 || far == 0 {
					t.Errorf("messages received: %d near, %d far", near, far)
				}
			})
		})
	}
}

const overlapTrip = 100 * time.Millisecond

// silence is the longest time after from without a message, at the server and at
// the client, beyond the usual.
func (d *duplex) silence(from time.Time) (out, in time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	longest := func(at []time.Time) (gap time.Duration) {
		for i := 1; i < len(at); i++ {
			if at[i].After(from) {
				gap = max(gap, at[i].Sub(at[i-1]))
			}
		}
		return gap - overlapTrip/20
	}
	return longest(d.farAt), longest(d.nearAt)
}
