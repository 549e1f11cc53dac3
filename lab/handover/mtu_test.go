//go:build virtualtime

package handover

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// behind adds a network whose way to the Internet takes packets of mtu bytes, and
// nothing tells of it: its own hosts may send 9,000.
func (w *world) behind(mtu int, r time.Duration) (inside, narrow *lab.Network) {
	narrow = w.in.AddNetwork("provider", lab.NetworkConfig{Link: lab.Link{Delay: r / 2, MTU: mtu}})
	inside = w.in.AddNetwork("home", lab.NetworkConfig{
		Prefixes: lab.Prefixes("10.3.0.0/24"), Link: lab.Link{MTU: 9000}, Parent: narrow,
		NAT: &lab.NAT{Outside: lab.Addrs("203.0.113.3")},
	})
	return inside, narrow
}

// TestPathMTU moves to networks whose paths take packets of several sizes, where no
// ICMP message tells of them: both ends find out, over UDP, and data passes.
func TestPathMTU(t *testing.T) {
	for _, mtu := range []int{1280, 1400, 1500, 9000} {
		synctest.Test(t, func(t *testing.T) {
			const r = 50 * time.Millisecond
			w := newWorld(t, r)
			defer w.close()
			inside, _ := w.behind(mtu, r)
			m := w.join("laptop", 10)
			settle()
			m.host.Move("if0", inside)
			settle()
			near, far := m.pair(7)
			for _, c := range [][2]net.Conn{{near, far}, {far, near}} {
				const size = 1 << 20
				w.tasks.Go(func() { _, _ = io.CopyN(c[0], zeros{}, size) })
				if _, err := io.CopyN(io.Discard, c[1], size); err != nil {
					t.Error(err)
				}
			}
			settle()
			near.Close()
			far.Close()
			p := m.client.Status().Path
			if p == nil || p.Encapsulation != "udp" {
				t.Fatalf("path: %+v", p)
			}
			if p.MTUOut > mtu || p.MTUOut < mtu-12 || p.MTUIn > mtu || p.MTUIn < mtu-12 {
				t.Errorf("%d bytes out and %d in, want %d", p.MTUOut, p.MTUIn, mtu)
			}
		})
	}
}

// TestPathMTUFalls makes a path narrower in the midst of a transfer; nothing tells of
// that but what is lost. It takes four round trips, and a second more where the control
// of the rate has to give up first what is on the way.
func TestPathMTUFalls(t *testing.T) {
	for _, down := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const r = 50 * time.Millisecond
			w := newWorld(t, r)
			defer w.close()
			inside, narrow := w.behind(1500, r)
			m := w.join("laptop", 10)
			settle()
			m.host.Move("if0", inside)
			settle()
			// Enough for 6 s at this rate.
			link := lab.Link{Delay: r / 2, Rate: 2 << 20, MTU: 1500}
			narrow.SetLink(link)
			a, b := m.pair(7)
			if down {
				a, b = b, a
			}
			var mu sync.Mutex
			var at []time.Time
			w.tasks.Go(func() {
				buf := make([]byte, 64<<10)
				for {
					if _, err := b.Read(buf); err != nil {
						return
					}
					mu.Lock()
					at = append(at, time.Now())
					mu.Unlock()
				}
			})
			w.tasks.Go(func() {
				_, _ = io.CopyN(a, zeros{}, 12<<20)
			})
			time.Sleep(2 * time.Second)
			link.MTU = 1280
			narrow.SetLink(link)
			fell := time.Now()
			time.Sleep(10 * time.Second)
			mu.Lock()
			last, longest := fell, time.Duration(0)
			for _, u := range at {
				if u.After(fell) && u.Sub(last) > longest {
					longest = u.Sub(last)
				}
				if u.After(last) {
					last = u
				}
			}
			mu.Unlock()
			t.Logf("down %v: data stood still for %.1f R", down, lab.Rounds(longest, r))
			if rounds := lab.Rounds(longest, r); rounds > 60 || last.Sub(fell) < time.Second {
				t.Errorf("down %v: data stood still for %.1f R, and came until %v after the fall", down, rounds, last.Sub(fell))
			}
			s := m.client.Status()
			if p := s.Path; p == nil || p.Encapsulation != "udp" || !down && p.MTUOut > 1280 {
				t.Errorf("path: %+v", p)
			}
			a.Close()
			b.Close()
		})
	}
}

// zeros gives zero bytes without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
