//go:build virtualtime

package handover

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/lab"
)

// TestForce keeps a link to one encapsulation: data goes over without a pause, stays
// there across a move, waits where that one does not pass though others would, and
// goes on when it is let go of.
func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		<-m.client.Ready()
		settle()
		d := m.talk(10 * time.Millisecond)
		settle()
		on := func(name string) {
			t.Helper()
			s := m.client.Status()
			if s.State != "connected" || s.Path == nil || s.Path.Encapsulation != name {
				t.Fatalf("%s by %+v, want %s", s.State, s.Path, name)
			}
		}
		// pause is the longest time without a message at one of the ends since at.
		pause := func(at time.Time) (longest time.Duration) {
			d.mu.Lock()
			defer d.mu.Unlock()
			for _, times := range [][]time.Time{d.nearAt, d.farAt} {
				last := at
				for _, now := range append(times, time.Now()) {
					if now.After(at) {
						longest = max(longest, now.Sub(last))
						last = now
					}
				}
			}
			return longest
		}
		on("udp")

		for _, name := range []string{"tcp", "websocket", "udp", "tcp", "udp"} {
			began := time.Now()
			if err := m.client.Force(name); err != nil {
				t.Fatal(err)
			}
			settle()
			on(name)
			if f := m.client.Status().Forced; f != name {
				t.Errorf("the status says that %q is forced", f)
			}
			if p := pause(began); p > 2*r {
				t.Errorf("a pause of %v while %s was forced", p, name)
			}
		}
		if err := m.client.Force("websocket"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // nothing better is looked for
		on("websocket")
		m.host.Move("if0", w.cell)
		settle()
		on("websocket")

		if err := m.client.Force("udp"); err != nil {
			t.Fatal(err)
		}
		settle()
		w.cell.SetFirewall(lab.OnlyTCP)
		before := time.Now()
		settle()
		if s := m.client.Status(); s.State != "moving" || s.Forced != "udp" {
			t.Errorf("%s, forced %q where udp does not pass", s.State, s.Forced)
		}
		if p := pause(before); p < 5*time.Second {
			t.Errorf("data went on, with pauses of %v at most", p)
		}
		if err := m.client.Force(""); err != nil {
			t.Fatal(err)
		}
		settle()
		on("tcp")
		w.cell.SetFirewall(nil)

		if err := m.client.Force("pigeon"); !errors.Is(err, client.ErrNoEncapsulation) {
			t.Errorf("force a pigeon: %v", err)
		}
		if near, far := d.end(); near == 0 || far == 0 {
			t.Error("no data")
		}
	})
}
