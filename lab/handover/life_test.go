//go:build virtualtime

package handover

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestOutage takes the only network away for a while, with data flowing both
// ways until then, and brings another. The connection must go on where it was.
func TestOutage(t *testing.T) {
	for _, outage := range []time.Duration{500 * time.Millisecond, 5 * time.Second, time.Minute, 10 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const r = 50 * time.Millisecond
				w := newWorld(t, r)
				defer w.close()
				m := w.join("laptop", 10)
				d := m.talk(r / 5)
				settle()
				before := m.client.Status()
				m.host.Detach("if0")
				time.Sleep(outage)
				back := time.Now()
				m.host.Attach("if0", w.cell)
				settle()
				after := m.client.Status()
				nearAt, farAt := d.since(back, back)
				out, in := lab.Rounds(farAt.Sub(back), r)-0.5, lab.Rounds(nearAt.Sub(back), r)
				t.Logf("client data again at %.2f R, server data arrives at %.2f R, %d packets sent again",
					out, in, after.PacketsResent-before.PacketsResent)
				// Messages are a fifth of a round trip apart.
				if out > 0.1 || in > 1.2 {
					t.Error("want data with the request, and 1.0")
				}
				if after.Path == nil || after.Path.Verdict != "napt" || after.State != "connected" {
					t.Errorf("after the outage: %s, %+v, %+v", after.State, after.Path, after.Registrations)
				}
				if outage < 20*time.Second && after.IKESent != before.IKESent {
					t.Errorf("%d IKE messages", after.IKESent-before.IKESent)
				}
				if near, far := d.end(); near == 0 || far == 0 {
					t.Errorf("messages received: %d near, %d far", near, far)
				}
			})
		})
	}
}

// TestRekeyingUnderTraffic renews both kinds of SA every few seconds; nothing
// may be lost.
func TestRekeyingUnderTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r, func(w *world) { w.ikeLife, w.childLife = 17*time.Second, 5*time.Second })
		defer w.close()
		m := w.join("laptop", 10)
		d := m.talk(r / 5)
		settle()
		for range 6 {
			time.Sleep(10 * time.Second)
			m.host.Move("if0", w.cell)
			time.Sleep(10 * time.Second)
			m.host.Move("if0", w.wifi)
		}
		settle()
		s := m.client.Status()
		// Two minutes and some: each Child SA lives 5 s at most, each IKE SA 17.
		if want := uint64(2 + 24 + 7); s.IKESent+s.IKEReceived < 2*want {
			t.Errorf("%d IKE messages, want at least %d", s.IKESent+s.IKEReceived, 2*want)
		}
		if s.State != "connected" {
			t.Errorf("state %s: %s", s.State, s.LastError)
		}
		if n := len(s.Registrations); n != 13 {
			t.Errorf("%d registrations, want 13: rekeying must not look like a broken path", n)
		}
		near, far := d.end()
		t.Logf("%d and %d messages, %d packets dropped", near, far, s.PacketsDropped)
	})
}

// TestServerRestart has the server lose all state. The client finds out, makes
// a new IKE SA by itself, and new connections work.
func TestServerRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		<-m.client.Ready()
		settle()
		w.stopServer()
		w.serve()
		time.Sleep(time.Minute)
		d := m.talk(r)
		settle()
		if near, far := d.end(); near == 0 || far == 0 {
			t.Errorf("messages received: %d near, %d far", near, far)
		}
	})
}

// TestServerCrash is the same without a farewell.
func TestServerCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		<-m.client.Ready()
		settle()
		w.wifi.SetFirewall(lab.DropAll)
		w.stopServer()
		w.wifi.SetFirewall(nil)
		w.serve()
		d := m.talk(r)
		settle()
		s := m.client.Status()
		t.Logf("%s, %d IKE messages sent", s.State, s.IKESent)
		if near, far := d.end(); near == 0 || far == 0 {
			t.Errorf("messages received: %d near, %d far", near, far)
		}
	})
}

// TestRemovedClient takes the right to come in from a client that is
// connected: its link ends soon, and it is told why.
func TestRemovedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 50*time.Millisecond)
		defer w.close()
		w.ended = make(chan error, 1)
		m := w.join("laptop", 10)
		<-m.client.Ready()
		settle()
		w.mu.Lock()
		clear(w.users)
		w.mu.Unlock()
		start := time.Now()
		err := <-w.ended
		if err == nil || !strings.Contains(err.Error(), "refuses this client's key") {
			t.Errorf("the client ended with %v", err)
		}
		if took := time.Since(start); took > 12*time.Second {
			t.Errorf("the client was let in for %v after it was removed", took)
		}
	})
}
