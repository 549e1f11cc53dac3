//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestNATRebinding has the NAT forget all mappings in mid-flow while nothing
// changes at the client. Data goes on without a registration.
func TestNATRebinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		d := m.talk(r / 10)
		settle()
		before := m.client.Status()
		w.wifi.SetNAT(&lab.NAT{Outside: lab.Addrs("203.0.113.77"), ChangePort: true})
		at := time.Now()
		settle()
		after := m.client.Status()
		// What was on its way when the mapping went is lost; a packet of the client
		// makes the new one, and the answer to it arrives a round trip later. TCP
		// needs another to fill what is missing: until the new address is proven
		// there is no right to send so much.
		nearAt, farAt := d.since(at.Add(r/2), at.Add(r/2))
		t.Logf("client data %.2f R after the change, server data %.2f R", lab.Rounds(farAt.Sub(at), r)-0.5, lab.Rounds(nearAt.Sub(at), r))
		if in := lab.Rounds(nearAt.Sub(at), r); in > 2.1 {
			t.Errorf("server data arrives %.2f round trips after the change of mapping", in)
		}
		if n := len(after.Registrations) - len(before.Registrations); n != 0 {
			t.Errorf("%d registrations: %+v", n, after.Registrations[len(before.Registrations):])
		}
		if after.Path.Verdict != "napt" {
			t.Errorf("the verdict is still %s", after.Path.Verdict)
		}
		if near, far := d.end(); near == 0 || far == 0 {
			t.Errorf("messages received: %d near, %d far", near, far)
		}
	})
}
