//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestNoiseIsNotSilence loses a fifth of all packets each way for a while: the
// link must not take that for a broken path, whether TCP inside sends often or
// waits for its own timers.
func TestNoiseIsNotSilence(t *testing.T) {
	for _, every := range []time.Duration{5 * time.Millisecond, 700 * time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = 50 * time.Millisecond
				w := newWorld(t, r)
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(every)
				settle()
				before := len(m.client.Status().Registrations)
				w.wifi.SetLink(lab.Link{Delay: r / 2, Loss: 0.2})
				time.Sleep(2 * time.Minute)
				w.wifi.SetLink(lab.Link{Delay: r / 2})
				settle()
				s := m.client.Status()
				for _, g := range s.Registrations[before:] {
					t.Errorf("a registration by %s at %v", g.Trigger, g.Started)
				}
				if near, far := d.end(); near == 0 || far == 0 {
					t.Errorf("messages received: %d near, %d far", near, far)
				}
			})
		})
	}
}
