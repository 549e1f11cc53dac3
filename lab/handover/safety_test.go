//go:build virtualtime

package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// TestSimultaneousBindings moves to a second network while the first still
// works; then the second carries nothing towards the client for a while. The
// server sends by both, so its data does not pause.
func TestSimultaneousBindings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		d := m.talk(r / 10)
		settle()
		m.host.Attach("if1", w.cell)
		m.host.Prefer("if1")
		time.Sleep(4 * r)
		if p := m.client.Status().Path; p == nil || p.Verdict != "napt" {
			t.Fatalf("not moved: %+v", p)
		}
		bad := time.Now()
		w.cell.SetFirewall(lab.DropAll)
		time.Sleep(3 * r)
		w.cell.SetFirewall(nil)
		nearAt, _ := d.since(bad.Add(r), bad)
		if nearAt.IsZero() || nearAt.Sub(bad.Add(r)) > r/5 {
			t.Errorf("server data pauses: network bad at %v, next message at %v", bad, nearAt)
		}
		settle()
		d.end()
	})
}

// TestTwoClientsMoveAtOnce has two clients change places at the same instant.
func TestTwoClientsMoveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		one, two := w.join("one", 11), w.join("two", 12)
		d := one.talk(r / 10)
		e := two.talk(r / 10)
		two.host.Move("if0", w.cell)
		settle()
		for range 3 {
			moved := time.Now()
			one.host.Move("if0", w.cell)
			two.host.Move("if0", w.wifi)
			time.Sleep(2 * r)
			for _, d := range []*duplex{d, e} {
				nearAt, farAt := d.since(moved, moved.Add(r/2))
				out, in := lab.Rounds(farAt.Sub(moved), r)-0.5, lab.Rounds(nearAt.Sub(moved), r)
				if nearAt.IsZero() || farAt.IsZero() || out > 0.1+0.1 || in > 1.1+0.1 {
					t.Errorf("client data after %.2f R, server data after %.2f R", out, in)
				}
			}
			settle()
			one.host.Move("if0", w.wifi)
			two.host.Move("if0", w.cell)
			settle()
		}
		d.end()
		e.end()
	})
}

// TestClonedClient has two machines use one key. The newest to connect has the
// link; the other one comes back when it finds itself unanswered.
func TestClonedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		echo := w.echo(9).String()
		first := w.join("first", 10)
		<-first.client.Ready()
		settle()
		w.cloned = first.key
		second := w.join("second", 10)
		<-second.client.Ready()
		for _, m := range []*mobile{second, first} {
			rounds, err := m.firstByte(r, echo)
			t.Logf("%s: first byte after %.1f R", m.host.Name(), rounds)
			if err != nil {
				t.Errorf("%s: %v", m.host.Name(), err)
			}
			if m == second && rounds > 4 {
				t.Error("the newest does not have the link")
			}
		}
	})
}
