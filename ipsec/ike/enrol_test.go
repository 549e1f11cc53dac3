package ike

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

var errStranger = errors.New("stranger")

// closedOf gives how the initiator's session ended.
func (p *pair) closedOf() error {
	p.t.Helper()
	for _, e := range p.eventsI {
		if c, ok := e.(Closed); ok {
			return c.Err
		}
	}
	p.t.Fatal("the initiator is not told")
	return nil
}

// A responder learns the key of a peer that proves it and shows what it was
// given, and asks nobody about one that does not prove it.
func TestEnrolment(t *testing.T) {
	own := testKey(9)
	asked := 0
	set := func(p *pair) {
		p.ic.PrivateKey, p.ic.Enrolment = own, []byte("ticket")
		p.rc.Lookup = func(Identity, ed25519.PublicKey) (*Peer, error) { return nil, errStranger }
		p.rc.Enrol = func(key ed25519.PublicKey, proof []byte) (*Peer, error) {
			asked++
			if !slices.Equal(key, public(own)) || string(proof) != "ticket" {
				t.Errorf("asked about %x with %q", key, proof)
			}
			return &Peer{Name: "new", PublicKey: key}, nil
		}
	}
	p := newPair(t, set)
	p.establish()
	if asked != 1 {
		t.Fatalf("asked %d times", asked)
	}

	// Nothing shown: nobody is asked.
	p = newPair(t, set, func(p *pair) { p.ic.Enrolment = nil })
	p.run()
	if err := p.closedOf(); !isFailedAuthentication(err) || asked != 1 {
		t.Fatalf("without a ticket: %v, asked %d times", err, asked)
	}
	// A key that is not its own: nobody is asked either, and no reason is told.
	p = newPair(t, set, func(p *pair) {
		p.rc.Lookup = func(Identity, ed25519.PublicKey) (*Peer, error) { return nil, ReasonUsed }
	})
	p.toResponder() // IKE_SA_INIT
	p.i.c.PrivateKey = slices.Concat(own[:32], ed25519.PrivateKey(public(testKey(8))))
	p.run()
	var r Reason
	if err := p.closedOf(); !isFailedAuthentication(err) || errors.As(err, &r) || asked != 1 {
		t.Fatalf("with somebody else's key: %v, asked %d times", err, asked)
	}
}

func isFailedAuthentication(err error) bool {
	var n *NotifyError
	return errors.As(err, &n) && n.Type == message.AuthenticationFailed
}

// Why it is refused is told to who has proven its key, by Lookup as by Enrol.
func TestReasonOfRefusal(t *testing.T) {
	for _, want := range []Reason{ReasonExpired, ReasonUsed, 77} {
		for _, by := range []string{"Lookup", "Enrol"} {
			p := newPair(t, func(p *pair) {
				p.rc.Lookup = func(Identity, ed25519.PublicKey) (*Peer, error) { return nil, want }
				if by == "Enrol" {
					p.ic.Enrolment = []byte("ticket")
					p.rc.Lookup = func(Identity, ed25519.PublicKey) (*Peer, error) { return nil, errStranger }
					p.rc.Enrol = func(ed25519.PublicKey, []byte) (*Peer, error) { return nil, want }
				}
			})
			p.run()
			var got Reason
			if err := p.closedOf(); !isFailedAuthentication(err) || !errors.As(err, &got) || got != want {
				t.Errorf("%s refuses with %v: the peer is told %v", by, want, err)
			}
		}
	}
}
