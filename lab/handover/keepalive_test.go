//go:build virtualtime

package handover

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestKeepalives leaves a client alone behind NATs with several timeouts: it learns how
// seldom the mapping has to be refreshed, sends nothing else, and stays in reach.
func TestKeepalives(t *testing.T) {
	for _, nat := range []time.Duration{30 * time.Second, 5 * time.Minute} {
		for _, changePort := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				const r = 50 * time.Millisecond
				w := newWorld(t, r, func(w *world) { w.ikeLife, w.childLife = 100*time.Hour, 100*time.Hour })
				defer w.close()
				home := w.in.AddNetwork("home", lab.NetworkConfig{
					Prefixes: lab.Prefixes("10.3.0.0/24"), Link: lab.Link{Delay: r / 2},
					NAT: &lab.NAT{Outside: lab.Addrs("203.0.113.3"), ChangePort: changePort, UDPTimeout: nat},
				})
				m := w.join("laptop", 10)
				settle()
				near, far := m.pair(7)
				m.host.Move("if0", home)
				settle()
				time.Sleep(2 * time.Hour) // to learn
				var mu sync.Mutex
				var sent []time.Time
				server := netip.MustParseAddrPort(serverAt)
				stop := w.in.Trace(func(e lab.Event) {
					if e.Fate == lab.Sent && e.Dst == server && e.Proto == lab.UDP {
						mu.Lock()
						sent = append(sent, time.Now())
						mu.Unlock()
					}
				})
				time.Sleep(2 * time.Hour)
				stop()
				mu.Lock()
				longest := time.Duration(0)
				for i := 1; i < len(sent); i++ {
					longest = max(longest, sent[i].Sub(sent[i-1]))
				}
				n := len(sent)
				mu.Unlock()
				t.Logf("NAT of %v, other port %v: %d packets in two hours, %v apart", nat, changePort, n, longest)
				if longest > nat || n < 2 || n > int(2*time.Hour/(nat/2))+2 {
					t.Errorf("NAT of %v: %d packets in two hours, up to %v apart", nat, n, longest)
				}
				for range 5 {
					time.Sleep(longest * 4 / 5)
					before := time.Now()
					if _, err := far.Write([]byte{1}); err != nil {
						t.Fatal(err)
					}
					if _, err := near.Read(make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
					if d := time.Since(before); d > 2*r {
						t.Errorf("NAT of %v: what the target sent took %v", nat, d)
					}
				}
				near.Close()
				far.Close()
			})
		}
	}
}
