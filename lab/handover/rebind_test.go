//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/tcp"
)

// TestNATRebinding has the NAT forget all mappings in mid-flow while nothing
// changes at the client. Data by UDP goes on without a registration, whoever
// decides and whatever is kept ready; a stream cannot, and needs one.
func TestNATRebinding(t *testing.T) {
	for _, tt := range []struct {
		name          string
		adjust        func(*client.Config)
		registrations bool
		limit         float64 // round trips until server data arrives
	}{
		// What was on its way when the mapping went is lost; a packet of the client
		// makes the new one, and the answer to it arrives a round trip later. TCP
		// needs another to fill what is missing: until the new address is proven
		// there is no right to send so much.
		{"udp", nil, false, 2.1},
		{"udp, the client decides", func(c *client.Config) { c.ClientDecides = true }, false, 2.1},
		{"udp, with a standby", func(c *client.Config) { c.Standby = true }, false, 2.1},
		// Noticed in the larger of three round trips and 300 ms.
		{"tcp", func(c *client.Config) { c.Transports = []transports.Transport{tcp.New()} }, true, 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = 50 * time.Millisecond
				w := newWorld(t, r, func(w *world) { w.adjust = tt.adjust })
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 10)
				settle()
				before := m.client.Status()
				rebound := w.server.Status().Totals.Rebound
				w.wifi.SetNAT(&lab.NAT{Outside: lab.Addrs("203.0.113.77"), ChangePort: true})
				at := time.Now()
				settle()
				after := m.client.Status()
				nearAt, farAt := d.since(at.Add(r/2), at.Add(r/2))
				t.Logf("client data %.2f R after the change, server data %.2f R", lab.Rounds(farAt.Sub(at), r)-0.5, lab.Rounds(nearAt.Sub(at), r))
				if in := lab.Rounds(nearAt.Sub(at), r); nearAt.IsZero() || in > tt.limit {
					t.Errorf("server data arrives %.2f round trips after the change of mapping", in)
				}
				n := 0
				for _, g := range after.Registrations[len(before.Registrations):] {
					if g.Trigger != "standby" {
						n++
					}
				}
				if (n > 0) != tt.registrations {
					t.Errorf("%d registrations: %+v", n, after.Registrations[len(before.Registrations):])
				}
				if got := w.server.Status().Totals.Rebound - rebound; !tt.registrations && got != 1 {
					t.Errorf("the server counts %d changes of mapping", got)
				}
				if after.Path == nil || after.Path.Verdict != "napt" {
					t.Errorf("the path is %+v", after.Path)
				}
				if near, far := d.end(); near == 0 || far == 0 {
					t.Errorf("messages received: %d near, %d far", near, far)
				}
			})
		})
	}
}
