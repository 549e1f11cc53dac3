package ike

import "time"

// A Session is an association with one peer: an IKE SA, those that replace it
// by rekeying, and their Child SAs. One goroutine owns it.
type Session struct{}

// NewInitiator starts an exchange; IKE_SA_INIT waits in Events. It fails on a
// configuration that cannot work.
func NewInitiator(c InitiatorConfig, now time.Time) (*Session, error) { return nil, nil }

// Receive takes a message from the network, which may be anything. It keeps
// nothing of msg. A response to it goes to path.
func (s *Session) Receive(now time.Time, msg []byte, path Path) {}

// Advance does what is due at now.
func (s *Session) Advance(now time.Time) {}

// NextTimeout is when Advance wants to be called; zero if there is no need.
func (s *Session) NextTimeout() time.Time { return time.Time{} }

// Events gives what happened since the last call, in order. The events of a
// Responder's sessions come from Responder.Events instead.
func (s *Session) Events() []Event { return nil }

// RekeyChild replaces the newest Child SA.
func (s *Session) RekeyChild(now time.Time) {}

// RekeyIKE replaces the IKE SA; SPIs changes when it is done.
func (s *Session) RekeyIKE(now time.Time) {}

// Liveness asks the peer for a sign of life; Alive or Closed follows. A request
// that is already under way counts as the question.
func (s *Session) Liveness(now time.Time) {}

// Retransmit sends the request under way again at once, as after a move.
func (s *Session) Retransmit(now time.Time) {}

// Delete ends the IKE SA and its children; Closed follows.
func (s *Session) Delete(now time.Time) {}

// SPIs gives the SPIs of the current IKE SA; responder is 0 before there is one.
func (s *Session) SPIs() (initiator, responder uint64) { return 0, 0 }

// Role is this end's role in the first exchange; rekeying does not change it.
func (s *Session) Role() Role { return 0 }

// Peer is what Lookup gave, at a responder once the peer is authenticated; else nil.
func (s *Session) Peer() *Peer { return nil }
