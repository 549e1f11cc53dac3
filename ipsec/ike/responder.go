package ike

import (
	"net/netip"
	"time"
)

// A Responder answers initiators and holds their Sessions. One goroutine owns
// it and them.
type Responder struct{}

// A SessionEvent is an Event of one Session of a Responder.
type SessionEvent struct {
	Session *Session // nil for a Send that belongs to none
	Event   Event
}

// NewResponder makes a Responder; it fails on a configuration that cannot work.
func NewResponder(c ResponderConfig) (*Responder, error) { return nil, nil }

// Receive takes a message from the network, which may be anything. It keeps
// nothing of msg. source is where it came from, for the log.
func (r *Responder) Receive(now time.Time, msg []byte, path Path, source netip.AddrPort) {}

// Advance does what is due at now, in all sessions.
func (r *Responder) Advance(now time.Time) {}

// NextTimeout is when Advance wants to be called; zero if there is no need.
func (r *Responder) NextTimeout() time.Time { return time.Time{} }

// Events gives what happened since the last call, in order.
func (r *Responder) Events() []SessionEvent { return nil }

// Sessions gives the established sessions in no order.
func (r *Responder) Sessions() []*Session { return nil }
