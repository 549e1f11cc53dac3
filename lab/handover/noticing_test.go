//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/lab"
)

// last is the newest registration.
func last(s client.Status) client.Registration {
	if len(s.Registrations) == 0 {
		return client.Registration{}
	}
	return s.Registrations[len(s.Registrations)-1]
}

// TestSameAddressElsewhere moves between two networks that give the host the
// same address, and wakes it from sleep: each is noticed at once, without
// waiting for data that stays unanswered.
func TestSameAddressElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 100 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		other := w.in.AddNetwork("neighbours", lab.NetworkConfig{
			Prefixes: lab.Prefixes("10.1.0.0/24"), Link: lab.Link{Delay: r / 2},
			NAT: &lab.NAT{Outside: lab.Addrs("203.0.113.9"), ChangePort: true},
		})
		m := w.join("mobile", 2)
		<-m.client.Ready()
		settle()
		at := m.host.Addresses()[0]
		n := len(m.client.Status().Registrations)

		m.host.Move("if0", other, at)
		time.Sleep(r + time.Millisecond)
		synctest.Wait()
		s := m.client.Status()
		if got := last(s); len(s.Registrations) != n+1 || got.Trigger != "address" || got.DurationMs != 100 || s.Path.Verdict != "napt" {
			t.Errorf("after the move: %d registrations more, the last %+v", len(s.Registrations)-n, got)
		}
		settle()

		m.resumed <- struct{}{}
		time.Sleep(r + time.Millisecond)
		synctest.Wait()
		s = m.client.Status()
		if got := last(s); len(s.Registrations) != n+2 || got.Trigger != "resume" || got.DurationMs != 100 {
			t.Errorf("after the sleep: %d registrations more, the last %+v", len(s.Registrations)-n, got)
		}
		settle()

		// News that change nothing start nothing.
		m.host.Prefer("if0")
		settle()
		if s := m.client.Status(); len(s.Registrations) != n+2 {
			t.Errorf("registered without need: %+v", last(s))
		}
	})
}

// TestRememberedPlace comes back to a network that passes nothing but TLS, and
// then finds it without any such limits.
func TestRememberedPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100*time.Millisecond)
		defer w.close()
		m := w.join("mobile", 2)
		<-m.client.Ready()
		settle()
		w.cell.SetFirewall(lab.OnlyTLS443)
		visit := func(n *lab.Network) (first, selected string) {
			m.host.Move("if0", n)
			settle()
			r := last(m.client.Status())
			if len(r.Copies) != 3 {
				t.Fatalf("tried %+v", r.Copies)
			}
			return r.Copies[0].Encapsulation, r.Selected
		}
		for i, want := range [][2]string{{"udp", "websocket"}, {"websocket", "websocket"}} {
			if first, selected := visit(w.cell); first != want[0] || selected != want[1] {
				t.Errorf("visit %d: tried %s first and took %s, want %v", i, first, selected, want)
			}
			if first, selected := visit(w.wifi); first != "udp" || selected != "udp" {
				t.Errorf("visit %d: back home tried %s first and took %s", i, first, selected)
			}
		}
		w.cell.SetFirewall(nil)
		if _, selected := visit(w.cell); selected != "udp" {
			t.Errorf("nothing is blocked any more, and %s was taken", selected)
		}
	})
}
