package ike

import (
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func withMOBIKE(p *pair) { p.ic.MOBIKE, p.rc.MOBIKE = true, true }

// A move while another request is under way: that one goes again first, then
// the update, and both ends know when it is done.
func TestUpdateAddresses(t *testing.T) {
	p := newPair(t, withMOBIKE)
	p.establish()
	if !p.i.MOBIKE() || !p.session().MOBIKE() {
		t.Fatal("MOBIKE is not agreed on")
	}
	// The old path swallows a liveness check.
	p.lose = func(r Role, _ message.Header) bool { return r == RoleInitiator }
	p.i.Liveness(p.now)
	p.run()
	p.lose = nil
	n := len(p.sends)
	// HDR, SK {} -->                            (again)
	// HDR, SK { N(UPDATE_SA_ADDRESSES), ... } -->
	p.i.UpdateAddresses(p.now)
	p.i.UpdateAddresses(p.now)
	p.now = p.now.Add(30 * time.Millisecond)
	p.run()
	if moved := find[Moved](p.responderEvents()); len(moved) == 0 {
		t.Errorf("the responder was not told; sent %q", p.sends[n:])
	}
	done := 0
	for _, a := range find[Alive](p.eventsI) {
		if a.Moved {
			done++
			if !a.Probed {
				t.Error("the answer to an update has no COOKIE2")
			}
		}
	}
	if done == 0 {
		t.Error("the initiator does not know that its update was answered")
	}
	p.wantAgreement()
	p.wantIdle()
}

// A probe is answered by who received it, and by no other answer.
func TestProbe(t *testing.T) {
	p := newPair(t, withMOBIKE)
	p.establish()
	p.session().Liveness(p.now)
	p.run()
	if a := find[Alive](p.responderEvents()); len(a) != 1 || a[0].Probed {
		t.Fatalf("a liveness check counts as a probe: %+v", a)
	}
	p.session().Probe(p.now)
	p.run()
	if a := find[Alive](p.responderEvents()); len(a) != 2 || !a[1].Probed {
		t.Fatalf("%+v", a)
	}
	r := &request{cookie2: []byte("12345678")}
	if r.probed(nil) || r.probed([]message.Payload{&message.Notify{NotifyType: message.Cookie2, Data: []byte("12345679")}}) ||
		(&request{}).probed([]message.Payload{&message.Notify{NotifyType: message.Cookie2}}) {
		t.Error("an answer without the right COOKIE2 counts")
	}
}

// Without the peer's word nothing of MOBIKE is sent or obeyed.
func TestNoMOBIKE(t *testing.T) {
	p := newPair(t, func(p *pair) { p.ic.MOBIKE = true })
	p.establish()
	n := len(p.sends)
	p.i.UpdateAddresses(p.now)
	p.run()
	if p.i.MOBIKE() || p.session().MOBIKE() || len(p.sends) != n {
		t.Errorf("MOBIKE with one end alone; sent %q", p.sends[n:])
	}
	if reply, moved := p.session().answerMOBIKE([]message.Payload{&message.Notify{NotifyType: message.UpdateSAAddresses}}); moved || reply != nil {
		t.Error("an update is obeyed that was not agreed on")
	}
}
