//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestOneWay has an encapsulation work in one direction alone, or for small
// packets alone, in place or where the client moves to. A short answer shall not be
// taken for a good path: both directions are soon on one that passes both ways, and
// stay; and the receipt tells which direction it was.
func TestOneWay(t *testing.T) {
	const r = 50 * time.Millisecond
	inDirection := func(proto lab.Proto, outbound bool) lab.Firewall {
		return func(p lab.Packet) lab.Verdict {
			if p.Proto == proto && p.Outbound == outbound {
				return lab.Drop
			}
			return lab.Pass
		}
	}
	smallUDP := func(p lab.Packet) lab.Verdict {
		if p.Proto == lab.UDP {
			return lab.DropLarger(600)(p)
		}
		return lab.Pass
	}
	type copied struct{ arrived, full, heard, answered bool }
	for _, tt := range []struct {
		name  string
		block lab.Firewall
		moves bool
		limit float64 // round trips until data moves again
		use   string
		what  string // it happens to
		want  copied
	}{
		{"UDP up dead where it moves to", inDirection(lab.UDP, true), true, 2.1, "tcp", "udp", copied{}},
		{"UDP down dead where it moves to", inDirection(lab.UDP, false), true, 12, "tcp", "udp", copied{arrived: true, full: true}},
		{"UDP up dies in place", inDirection(lab.UDP, true), false, 13, "tcp", "udp", copied{}},
		{"UDP down dies in place", inDirection(lab.UDP, false), false, 18, "tcp", "udp", copied{arrived: true, full: true}},
		{"TCP dead where it moves to", lab.DropTCP, true, 1.3, "udp", "tcp", copied{}},
		{"TCP up dead where it moves to", inDirection(lab.TCP, true), true, 1.3, "udp", "tcp", copied{}},
		{"TCP down dead where it moves to", inDirection(lab.TCP, false), true, 1.3, "udp", "tcp", copied{}},
		{"UDP takes small packets alone where it moves to", smallUDP, true, 4, "tcp", "udp", copied{arrived: true, heard: true}},
		{"UDP brings small packets alone where it moves to", lab.Inbound(smallUDP), true, 12, "tcp", "udp", copied{arrived: true, full: true, heard: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, r)
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 10)
				settle()
				before := len(m.client.Status().Registrations)
				at := time.Now()
				if tt.moves {
					w.cell.SetFirewall(tt.block)
					m.host.Move("if0", w.cell)
				} else {
					w.wifi.SetFirewall(tt.block)
				}
				settle()
				st := m.client.Status()
				p := st.Path
				if p == nil || p.Encapsulation != tt.use {
					t.Fatalf("path: %+v", p)
				}
				for _, c := range st.Registrations[before].Copies {
					if got := (copied{c.Arrived, c.ArrivedFull, c.Heard, c.Answered}); c.Encapsulation == tt.what && got != tt.want {
						t.Errorf("%s: the receipt says %+v, want %+v", tt.what, got, tt.want)
					}
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
