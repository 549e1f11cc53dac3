package ike

import (
	"slices"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func TestLiveness(t *testing.T) {
	p := newPair(t)
	p.establish()
	n := len(p.sends)
	// HDR, SK {} -->
	// <-- HDR, SK {}
	p.i.Liveness(p.now)
	p.i.Liveness(p.now)
	p.collect()
	p.now = p.now.Add(40 * time.Millisecond)
	p.run()
	if len(p.sends)-n != 2 {
		t.Fatalf("sent %q", p.sends[n:])
	}
	if a := find[Alive](p.eventsI); len(a) != 1 || a[0].RoundTrip != 40*time.Millisecond {
		t.Fatalf("alive %v", a)
	}
	p.session().Liveness(p.now)
	p.run()
	if a := find[Alive](p.responderEvents()); len(a) != 1 {
		t.Fatalf("alive %v", a)
	}
}

func TestLivenessTimeout(t *testing.T) {
	p := newPair(t)
	p.establish()
	p.lose = func(Role, message.Header) bool { return true }
	p.i.Liveness(p.now)
	p.session().Liveness(p.now)
	p.pass(59 * time.Second)
	if len(find[Closed](p.eventsI)) > 0 {
		t.Fatal("closed too early")
	}
	p.pass(2 * time.Second)
	wantError(t, "initiator", p.closedI(), ErrTimeout)
	wantError(t, "responder", p.closedR(), ErrTimeout)
	if len(living(p.eventsI))+len(living(p.responderEvents())) > 0 {
		t.Fatal("children outlive the session")
	}
	p.pass(time.Minute)
	if len(p.r.bySPI)+len(p.r.byInit)+len(p.r.wakes)+p.r.halfOpen != 0 {
		t.Fatal("something is left at the responder")
	}
}

// An outage longer than any timer ends nothing when giving up is off.
func TestNeverGiveUp(t *testing.T) {
	p := newPair(t, func(p *pair) { p.ic.RetransmitFor, p.rc.RetransmitFor = -1, -1 })
	p.establish()
	p.lose = func(Role, message.Header) bool { return true }
	p.i.Liveness(p.now)
	p.pass(30 * time.Minute)
	p.lose = nil
	n := len(p.sends)
	p.i.Retransmit(p.now)
	p.run()
	if len(p.sends)-n != 2 || len(find[Alive](p.eventsI)) != 1 {
		t.Fatalf("sent %q", p.sends[n:])
	}
}

func TestDelete(t *testing.T) {
	for _, who := range []string{"initiator", "responder"} {
		for lost := range 3 {
			p := newPair(t)
			p.establish()
			first := len(p.sends)
			p.lose = func(Role, message.Header) bool { return len(p.sends)-first == lost }
			// HDR, SK {D} -->
			// <-- HDR, SK {}
			p.ends()[who].Delete(p.now)
			p.pass(5 * time.Second)
			wantError(t, "initiator", p.closedI(), nil)
			wantError(t, "responder", p.closedR(), nil)
			if len(living(p.eventsI))+len(living(p.responderEvents())) > 0 {
				t.Fatal("children outlive the session")
			}
			p.pass(time.Minute)
			if len(p.r.bySPI)+len(p.r.byInit)+len(p.r.byRemote)+len(p.r.wakes) != 0 {
				t.Fatal("something is left at the responder")
			}
		}
	}
}

// A request that is under way goes first: the window has size 1.
func TestDeleteWaitsForTheWindow(t *testing.T) {
	p := newPair(t)
	p.establish()
	n := len(p.sends)
	p.i.Liveness(p.now)
	p.i.Delete(p.now)
	p.run()
	want := []string{
		"I INFORMATIONAL request 2", "R INFORMATIONAL response 2",
		"I INFORMATIONAL request 3", "R INFORMATIONAL response 3",
	}
	if !slices.Equal(p.sends[n:], want) {
		t.Fatalf("sent %q", p.sends[n:])
	}
	wantError(t, "initiator", p.closedI(), nil)
}

func TestDeleteBeforeEstablished(t *testing.T) {
	p := newPair(t)
	p.i.Delete(p.now)
	p.i.Delete(p.now)
	p.collect()
	wantError(t, "initiator", p.closedI(), nil)
	if !p.i.NextTimeout().IsZero() {
		t.Fatal("a timer is left")
	}
}

// Both ends delete the IKE SA at once.
func TestDeleteCollision(t *testing.T) {
	p := newPair(t)
	p.establish()
	s := p.session()
	p.i.Delete(p.now)
	s.Delete(p.now)
	p.run()
	wantError(t, "initiator", p.closedI(), nil)
	wantError(t, "responder", p.closedR(), nil)
}

// Both ends delete the child at once: neither names it in its response (RFC
// 7296, Section 1.4.1).
func TestChildDeleteCollision(t *testing.T) {
	p := newPair(t)
	p.establish()
	s := p.session()
	for _, e := range []*Session{p.i, s} {
		e.enqueue(task{kind: reqDeleteChild, child: e.children[0]})
		e.pump(p.now)
	}
	p.run()
	for _, es := range [][]Event{p.eventsI, p.responderEvents()} {
		if d := find[ChildDeleted](es); len(d) != 1 {
			t.Fatalf("%d ChildDeleted", len(d))
		}
	}
	p.wantIdle()
}

// One end rekeys the child that the other deletes.
func TestRekeyMeetsChildDelete(t *testing.T) {
	p := newPair(t)
	p.establish()
	s := p.session()
	p.i.RekeyChild(p.now)
	s.enqueue(task{kind: reqDeleteChild, child: s.children[0]})
	s.pump(p.now)
	p.run()
	p.pass(time.Minute)
	p.wantIdle()
	a, b := living(p.eventsI), living(p.responderEvents())
	if len(a) != len(b) {
		t.Fatalf("%d and %d children", len(a), len(b))
	}
}

// One end rekeys the IKE SA that the other deletes: the session ends.
func TestRekeyMeetsDelete(t *testing.T) {
	p := newPair(t)
	p.establish()
	s := p.session()
	p.i.RekeyIKE(p.now)
	s.Delete(p.now)
	p.run()
	wantError(t, "initiator", p.closedI(), nil)
	wantError(t, "responder", p.closedR(), nil)
}

// Messages out of the window, or changed, are ignored (RFC 7296, Section 2.3).
func TestWindow(t *testing.T) {
	// With a secret it would answer requests of IKE SAs that it does not have.
	p := newPair(t, func(p *pair) { p.rc.TokenSecret = nil })
	p.establish()
	p.i.Liveness(p.now)
	p.collect()
	request := p.toR[0]
	n := len(p.sends)
	for at := range request.msg {
		b := slices.Clone(request.msg)
		b[at] ^= 1
		p.r.Receive(p.now, b, nil, source)
		p.collect()
	}
	if len(p.sends) != n {
		t.Fatalf("sent %q to changed requests", p.sends[n:])
	}
	p.run()
	p.i.Liveness(p.now)
	p.run()
	// The last but one request is too old.
	n = len(p.sends)
	p.toR = append(p.toR, request)
	p.run()
	if len(p.sends) != n {
		t.Fatalf("sent %q", p.sends[n:])
	}
}

// The peer's fault inside a protected request ends the IKE SA, an unknown
// critical payload does not.
func TestFaultyRequests(t *testing.T) {
	p := newPair(t)
	p.establish()
	sa := p.i.sa
	inject := func(ps ...message.Payload) []message.Payload {
		b, err := sa.seal(message.Informational, sa.nextSend, false, ps)
		if err != nil {
			t.Fatal(err)
		}
		sa.nextSend++
		p.r.Receive(p.now, b[0], nil, source)
		n := len(p.raw)
		p.collect()
		reply, err := sa.open(&sa.responses, sa.nextSend-1, p.raw[n])
		if err != nil {
			t.Fatal(err)
		}
		return reply.payloads
	}
	reply := inject(&message.Unknown{PayloadType: 200, Critical: true})
	if n := message.FindNotify(reply, message.UnsupportedCriticalPayload); n == nil || !slices.Equal(n.Data, []byte{200}) {
		t.Fatalf("reply %v", reply)
	}
	p.session()
	reply = inject(&message.Unknown{PayloadType: message.TypeNonce, Body: []byte("short")})
	if message.FindNotify(reply, message.InvalidSyntax) == nil {
		t.Fatalf("reply %v", reply)
	}
	if len(p.r.Sessions()) != 0 {
		t.Fatal("the session goes on")
	}
}
