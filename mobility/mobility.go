// Package mobility decides which path carries the packets of two terminals:
// the client's Registrar, the server's Binding, and the verdict on what lies
// between them (DESIGN.md, Sections 6 and 7; RFC 5944 for the messages).
//
// Everything here is a state machine without I/O: it takes the time, messages
// and what became of carriers, and gives back Actions and the time at which it
// wants to be woken. One goroutine of the owner uses it.
package mobility

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// A CarrierID is the owner's name for a carrier; zero is none.
type CarrierID uint64

// A Verdict says what lies between the two ends of a path.
type Verdict = regmsg.Verdict

// The verdicts of the design.
const (
	None         = regmsg.None
	NAT          = regmsg.NAT
	NAPT         = regmsg.NAPT
	Destination  = regmsg.Destination
	Protocol     = regmsg.Protocol
	Intermediary = regmsg.Intermediary
)

// A Trigger says why a registration was started.
type Trigger string

// The triggers, as status shows them.
const (
	TriggerConnect Trigger = "connect" // the IKE SA was just made
	TriggerAddress Trigger = "address" // the point of attachment changed
	TriggerSilence Trigger = "silence" // sent data stayed unanswered
	TriggerSocket  Trigger = "socket"  // the carrier in use ended
	TriggerClimb   Trigger = "climb"   // a better encapsulation is probed
	TriggerAsked   Trigger = "asked"   // the user asked
	TriggerResume  Trigger = "resume"  // the host has slept
)

// Loses holds for triggers that tell of a path that works no more, or may.
func (t Trigger) Loses() bool {
	return t != TriggerConnect && t != TriggerClimb && t != TriggerAsked
}

// Errors that callers test for; all of them are for the debug log.
var (
	ErrStale   = errors.New("message of an older registration")
	ErrCarrier = errors.New("message by an unknown carrier")
	ErrCookie  = errors.New("confirmation with a wrong cookie")
	ErrAddress = errors.New("message for another home address or home agent")
)

// A ReplyError is a reply that refuses the registration.
type ReplyError struct{ Code regmsg.Code }

func (e *ReplyError) Error() string { return fmt.Sprintf("registration refused: %v", e.Code) }

// An Action is something that the owner of a Registrar or Binding has to do:
// Open, Send, Use, Validate or Close. They are to be done in order.
type Action interface{ action() }

// Open asks a Registrar's owner to open a carrier. The owner answers with
// Opened as soon as the addresses are known (from transports.Opening.First, so
// that the Sends that follow ride in the first flight) or with OpenFailed.
type Open struct {
	ID        CarrierID
	Name      transports.Name
	Interface string // by which it is to leave; empty: whichever the routes lead by
}

// Send asks for a registration message to be sent by a carrier, at once.
type Send struct {
	ID      CarrierID
	Message regmsg.Message
	PadTo   int // pad the whole ESP packet to so many bytes; 0 does not pad
}

// Use says that data leaves by this carrier from now on.
type Use struct {
	ID      CarrierID
	Verdict Verdict
	RTT     time.Duration // at a Registrar: what the registration took, handshakes included; 0 if unknown
	// From is the carrier by which the other end's packets come, where that is
	// another: no encapsulation passes both ways. Zero: they come by ID.
	From CarrierID
	// Validated, at a Binding, says that the peer's address is proven. Until
	// then, and until Validate, no more than three times what was received may
	// be sent (RFC 9000, Section 8.1).
	Validated bool
	// Also, at a Binding, is a carrier by which everything is sent too, for
	// AlsoFor at most and no longer than this Use is the last; zero: none.
	Also    CarrierID
	AlsoFor time.Duration
	// Provisional, at a Registrar, says that no answer has come by this carrier
	// yet: it is only the likeliest to work, where the one before works no more.
	// What is sent by it may be lost; the reply's receive state will tell.
	Provisional bool
	// Since, of a provisional one that follows another, is when data began to
	// leave by that other, which has not answered; zero: there was none.
	Since time.Time
}

// Validate says that the peer receives at the carrier's address.
type Validate struct{ ID CarrierID }

// Close says that a carrier is not needed any more; the owner closes it and
// need not report that. It may come while the carrier is still being opened.
type Close struct{ ID CarrierID }

func (Open) action()     {}
func (Send) action()     {}
func (Use) action()      {}
func (Validate) action() {}
func (Close) action()    {}

// Path is what data leaves by.
type Path struct {
	ID      CarrierID // zero: no path
	Name    transports.Name
	Local   netip.AddrPort
	Remote  netip.AddrPort
	RTT     time.Duration // 0 if unknown
	Verdict Verdict
	Since   time.Time
}

// A Record tells of one registration.
type Record struct {
	Number   uint32
	Trigger  Trigger
	Started  time.Time
	Copies   []CopyRecord    // one for each encapsulation
	Selected transports.Name // empty until the data moved
	Down     transports.Name // by which the server's data comes, if that is another than Selected; else empty
	Verdict  Verdict
	Revision uint16
	Duration time.Duration // from Started until the data first moved
	Done     bool          // nothing more will come of it
	// Overlap says that the path before worked when it was left: what was under
	// way arrives.
	Overlap bool
}

// loses holds if what was under way by the path before may be lost.
func (r *Record) loses() bool { return r.Trigger.Loses() && !r.Overlap }

// A CopyRecord tells of the copies sent by one encapsulation.
type CopyRecord struct {
	Encapsulation transports.Name
	Local, Remote netip.AddrPort
	SentAt        time.Time // zero: not sent
	Sent          int       // packets, short and padded ones
	Heard         bool      // a reply came, if only to a short copy
	// Arrived says that the server has told, by whatever way, that a copy got
	// there, and ArrivedFull that a padded one did.
	Arrived, ArrivedFull bool
	Came                 bool      // a packet of full size came by it, asked for by another way
	ReplyAt              time.Time // of the first reply to a padded copy; zero: none
	RTT                  time.Duration
	Verdict              Verdict
	Revision             uint16 // of the last reply
	Error                string // why the last attempt failed; empty if it did not
}

func discard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
