//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
)

// TestWarmStandby blocks UDP silently in mid-flow, without and with another
// encapsulation kept ready. With it the client's data waits for the detection
// and nothing else, the server's for a round trip more at the most.
func TestWarmStandby(t *testing.T) {
	const (
		r = 100 * time.Millisecond
		// Three round trips, and at most one until the first packet that stays
		// unanswered is due.
		detection = 4.1
	)
	for _, tt := range []struct {
		name    string
		standby bool
		out, in float64
	}{
		{"without", false, detection + 1.1, detection + 2.1},
		{"with", true, detection, detection + 1.1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, r, func(w *world) { w.adjust = func(c *client.Config) { c.Standby = tt.standby } })
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 20)
				settle()
				before := m.client.Status()
				if s := before.Standby; (s != nil) != tt.standby || s != nil && s.Encapsulation != "tcp" {
					t.Fatalf("the standby is %+v", s)
				}
				at := time.Now()
				w.wifi.SetFirewall(lab.DropUDP)
				settle()
				out, in := d.silence(at)
				t.Logf("silence at the server %.2f R, at the client %.2f R", lab.Rounds(out, r), lab.Rounds(in, r))
				if lab.Rounds(out, r) > tt.out || lab.Rounds(in, r) > tt.in {
					t.Errorf("want %.1f and %.1f", tt.out, tt.in)
				}
				if !tt.standby && lab.Rounds(out, r) < detection {
					t.Error("without a standby it is as fast: this test shows nothing")
				}
				after := m.client.Status()
				if p := after.Path; p == nil || p.Encapsulation != "tcp" {
					t.Errorf("the path is %+v", after.Path)
				}
				if s := after.Standby; tt.standby && (s == nil || s.Encapsulation != "websocket") {
					t.Errorf("the next standby is %+v", s)
				}
				if got := after.Registrations[len(before.Registrations)]; got.Trigger != "silence" || got.Selected != "tcp" {
					t.Errorf("then %+v", got)
				}
				// UDP passes again, and is climbed to; it stays so.
				w.wifi.SetFirewall(nil)
				time.Sleep(2 * time.Minute)
				settle()
				after = m.client.Status()
				if p, s := after.Path, after.Standby; p == nil || p.Encapsulation != "udp" || tt.standby && (s == nil || s.Encapsulation != "tcp") {
					t.Errorf("UDP passes again: path %+v, standby %+v", p, s)
				}
				if near, far := d.end(); near == 0 || far == 0 {
					t.Errorf("messages received: %d near, %d far", near, far)
				}
			})
		})
	}
}

// TestWarmStandbyOfADeadNetwork cuts all of the network for a while: a standby that
// is as dead as the rest must not keep the others from coming back.
func TestWarmStandbyOfADeadNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r, func(w *world) { w.adjust = func(c *client.Config) { c.Standby = true } })
		defer w.close()
		m := w.join("laptop", 10)
		d := m.talk(r / 10)
		settle()
		w.wifi.SetFirewall(lab.DropAll)
		time.Sleep(15 * time.Second)
		w.wifi.SetFirewall(nil)
		back := time.Now()
		settle()
		nearAt, farAt := d.since(back, back)
		// Copies by UDP leave every two seconds.
		if nearAt.IsZero() || farAt.IsZero() || nearAt.Sub(back) > 3*time.Second || farAt.Sub(back) > 3*time.Second {
			t.Errorf("data is back at %v and %v, the network at %v", nearAt, farAt, back)
		}
		time.Sleep(time.Minute)
		settle()
		if s := m.client.Status(); s.Path == nil || s.Path.Encapsulation != "udp" || s.Standby == nil || s.Standby.Encapsulation != "tcp" {
			t.Errorf("path %+v, standby %+v", s.Path, s.Standby)
		}
		d.end()
	})
}

// TestClientDecides has the two ends prefer different encapsulations: by default
// the server's order counts, and by configuration the client's, at a move too.
func TestClientDecides(t *testing.T) {
	for _, tt := range []struct {
		name   string
		client bool
		want   string
	}{{"server", false, "udp"}, {"client", true, "tcp"}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = 50 * time.Millisecond
				w := newWorld(t, r, func(w *world) {
					w.adjust = func(c *client.Config) {
						c.ClientDecides = tt.client
						c.Transports = []transports.Transport{c.Transports[1], c.Transports[0], c.Transports[2]}
					}
				})
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 10)
				settle()
				for _, where := range []string{"at home", "after a move"} {
					p, st := m.client.Status().Path, w.server.Status()
					if p == nil || p.Encapsulation != tt.want || st.Clients[0].Encapsulation != tt.want {
						t.Errorf("%s the client uses %+v, the server %+v", where, p, st.Clients)
					}
					m.host.Move("if0", w.cell)
					settle()
				}
				if near, far := d.end(); near == 0 || far == 0 {
					t.Errorf("messages received: %d near, %d far", near, far)
				}
			})
		})
	}
}
