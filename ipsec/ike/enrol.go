package ike

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// A Reason is why a responder refuses a peer that has proven to hold the key it
// showed. It travels in a notification beside AUTHENTICATION_FAILED, which says
// no more than its name. An error of ResponderConfig.Lookup or Enrol that wraps
// one is told to the peer; an error of an initiator's Closed wraps what it was
// told. Until the responder has proven itself a Reason is a hint for people.
type Reason uint8

// The reasons there are; 0 is none.
const (
	ReasonExpired Reason = 1 // the invitation was not used in time
	ReasonUsed    Reason = 2 // the invitation was used already, with another key
)

// Error names the reason.
func (r Reason) Error() string {
	switch r {
	case ReasonExpired:
		return "the invitation was not used in time"
	case ReasonUsed:
		return "the invitation was used already"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// maxEnrolment bounds what an initiator may send to be enrolled, in bytes.
const maxEnrolment = 1024

// enrolment is what an initiator shows to become known by its key.
func (s *Session) enrolment() []message.Payload {
	if len(s.ini.Enrolment) == 0 {
		return nil
	}
	return []message.Payload{&message.Notify{NotifyType: message.Enrolment, Data: s.ini.Enrolment}}
}

// enrol is for a peer that Lookup does not know by its raw key: it proves that
// the key is its own before anybody is asked whether it may come in, or told why
// not. unknown is what Lookup said.
func (s *Session) enrol(sa *ikeSA, id *message.ID, auth *message.Auth, key ed25519.PublicKey, ps []message.Payload, unknown error) (*Peer, error) {
	if err := s.verify(sa, id, auth, key, nil); err != nil {
		return nil, err
	}
	n := message.FindNotify(ps, message.Enrolment)
	if n == nil || len(n.Data) > maxEnrolment || s.resp.c.Enrol == nil {
		return nil, unknown
	}
	return s.resp.c.Enrol(key, bytes.Clone(n.Data))
}

// reasonOf gives what a peer is told about err.
func reasonOf(err error) []message.Payload {
	var r Reason
	if !errors.As(err, &r) {
		return nil
	}
	return []message.Payload{&message.Notify{NotifyType: message.Refused, Data: []byte{byte(r)}}}
}

// refusedWith is the error of a refusal, with the reason that came with it.
func refusedWith(t NotifyType, ps []message.Payload) error {
	err := error(&NotifyError{t})
	if n := message.FindNotify(ps, message.Refused); n != nil && len(n.Data) == 1 {
		err = fmt.Errorf("%w: %w", err, Reason(n.Data[0]))
	}
	return err
}
