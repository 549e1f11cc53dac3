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
