// Package regmsg encodes and decodes registration requests and replies (RREQ
// and RREP): the messages of RFC 5944, Sections 3.3 and 3.4, with all that
// Mobile IP has no field for in one extension of RFC 3115. docs/protocol.md
// draws every byte.
//
// The messages travel in an inner UDP packet to port 434, and that only inside
// ESP, which authenticates and encrypts them.
//
// # Limitations
//
// The authentication extensions of RFC 5944 are not implemented: ESP does their
// work. Foreign agents, broadcasts and reverse tunnels do not exist here.
package regmsg

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"

	"github.com/godwit-net/godwit/transports"
)

// Port is the UDP port of both messages, source and destination; RFC 5944,
// Section 3.
const Port = 434

// LifetimeInfinity is the lifetime, in seconds, that never ends; RFC 5944,
// Section 3.3.
const LifetimeInfinity = 0xffff

// VendorID marks our extension (RFC 3115). It is the number that RFC 5612 sets
// aside for examples, until the project has one of its own.
const VendorID = 32473

// Bounds of what a message carries.
const (
	MaxNames        = 16  // encapsulations supported or offered
	MaxWays         = 4   // carriers by which an answer is asked for
	MaxNameLen      = 32  // bytes of an encapsulation's name
	MaxString       = 255 // bytes of an authority, a path or a proxy
	MaxMissing      = 142 // bytes of the receive state's bitmap
	MaxMessage      = 4096
	CookieLen       = 16
	MaxPaddedPacket = 65535
)

// Errors that callers test for.
var (
	ErrMalformed       = errors.New("malformed registration message")
	ErrUnsupported     = errors.New("registration message needs what is not implemented")
	ErrTooLong         = errors.New("value does not fit the registration message")
	ErrNotRegistration = errors.New("not a registration packet")
)

// A Message is a *Request or a *Reply.
type Message interface {
	// AppendBinary appends the message to b; the error matches ErrTooLong when
	// a value is out of the message's bounds.
	AppendBinary(b []byte) ([]byte, error)
	// UnmarshalBinary reads a whole message and copies what it keeps; the
	// error matches ErrMalformed or ErrUnsupported.
	UnmarshalBinary(b []byte) error
	String() string
}

// A Verdict says what lies between the two ends of a path.
type Verdict uint8

// The verdicts, in rising order of precedence when several apply.
const (
	None         Verdict = iota // all equal
	NAT                         // the source address differs
	NAPT                        // the source port differs
	Destination                 // the destination differs: a port forward or load balancer
	Protocol                    // the IP version differs
	Intermediary                // the certificate or HTTP envelope differs
	numVerdicts
)

var verdictNames = [numVerdicts]string{"none", "nat", "napt", "destination", "protocol", "intermediary"}

// String gives the verdict's word as status shows it.
func (v Verdict) String() string {
	if v < numVerdicts {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// A Trigger says why a registration was started. The zero Trigger is not told.
type Trigger uint8

// The triggers, as package mobility names them; numbers never change.
var triggerNames = [...]string{"", "connect", "address", "silence", "socket", "climb", "asked", "resume", "standby"}

const numTriggers = Trigger(len(triggerNames))

// TriggerOf gives the trigger of a name, zero for a name that is not known.
func TriggerOf(name string) Trigger {
	for i, n := range triggerNames {
		if n == name {
			return Trigger(i)
		}
	}
	return 0
}

// String gives the trigger's name; that of zero is empty.
func (t Trigger) String() string {
	if t < numTriggers {
		return triggerNames[t]
	}
	return fmt.Sprintf("trigger(%d)", uint8(t))
}

// A Code is the reply's code, RFC 5944, Section 3.4.
type Code uint8

// The codes that we send; others of the RFC are shown by number.
const (
	CodeAccepted               Code = 0
	CodeUnspecified            Code = 128
	CodeProhibited             Code = 129
	CodeInsufficientResources  Code = 130
	CodeIdentificationMismatch Code = 133
	CodePoorlyFormed           Code = 134
)

// String gives the code's meaning.
func (c Code) String() string {
	switch c {
	case CodeAccepted:
		return "accepted"
	case CodeUnspecified:
		return "reason unspecified"
	case CodeProhibited:
		return "administratively prohibited"
	case CodeInsufficientResources:
		return "insufficient resources"
	case CodeIdentificationMismatch:
		return "registration identification mismatch"
	case CodePoorlyFormed:
		return "poorly formed request"
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// A Cookie proves that who echoes it has received at a path's address. The
// zero Cookie means none.
type Cookie [CookieLen]byte

// IsZero reports that there is no cookie.
func (c Cookie) IsZero() bool { return c == Cookie{} }

// Equal compares in constant time.
func (c Cookie) Equal(o Cookie) bool { return subtle.ConstantTimeCompare(c[:], o[:]) == 1 }

// String hides the cookie.
func (Cookie) String() string { return "redacted" }

// A ReceiveState says what has arrived on an inbound SA, so that the other end
// can send the rest again.
type ReceiveState struct {
	SPI     uint32 // the SA; zero if nothing is said
	Highest uint64 // highest sequence number received
	// Missing is a bitmap: bit i, the most significant of each byte first, is
	// set when Highest-1-i has not arrived; from the 1,025th on a bit stands for
	// 64 packets. At most MaxMissing bytes.
	Missing []byte
}

// An Offer is an encapsulation that the server takes, and where.
type Offer struct {
	Encapsulation transports.Name
	Address       netip.AddrPort // invalid: where the client reaches the server already
}

// A Request is a registration request (RREQ), RFC 5944, Section 3.3, or a
// confirmation, which is a request that echoes a cookie.
type Request struct {
	Lifetime       uint16     // seconds; LifetimeInfinity never ends, 0 deregisters
	HomeAddress    netip.Addr // the client's inner address
	HomeAgent      netip.Addr // the server's inner address
	Identification uint64     // the same in all copies of one registration; only grows

	Number    uint32                 // of the registration, the same in all its copies
	Sent      transports.Description // how this copy left; its source is the care-of address
	Supported []transports.Name      // in the client's order of preference
	Received  ReceiveState           // of the client's inbound SA

	// PaddedSize is the size in bytes of the whole ESP packet that brings a
	// padded copy; 0 for a short copy. In a confirmation it is the size of the
	// reply that is confirmed.
	PaddedSize uint16

	// Simultaneous, the S bit, asks the server to keep the binding before this
	// one for a while and to send by both.
	Simultaneous bool

	// Probe asks the server to answer but to leave the data where it is until
	// the client has decided.
	Probe bool
	// Decision, in a confirmation, says that the client has chosen the carrier
	// by which it comes. It counts the client's decisions in this registration
	// from 1, so that an older one which arrives late is known for what it is;
	// 0 is none.
	Decision uint16

	Cookie Cookie // of the reply that is confirmed; zero in a plain request

	// Down, in a confirmation with a decision, is the encapsulation by which the
	// server's data shall come, where that is another than the one by which the
	// decision comes; Cookie is that of a reply which came by it. Empty: the same.
	Down transports.Name

	// Trigger says why the registration was started, for what the server counts;
	// nothing depends on it.
	Trigger Trigger

	// Ways are other carriers by which an answer is asked for, since nothing that
	// answers both ways was found.
	Ways []Way
}

// A Way is a carrier by which the client can hear, as it sees it. Whether what it
// sends by that gets there is not known.
type Way struct {
	Encapsulation transports.Name
	Local, Remote netip.AddrPort // of the client
}

// Confirmation reports that the request echoes a cookie.
func (r *Request) Confirmation() bool { return !r.Cookie.IsZero() }

// A Reply is a registration reply (RREP), RFC 5944, Section 3.4.
type Reply struct {
	Code           Code
	Lifetime       uint16 // seconds
	HomeAddress    netip.Addr
	HomeAgent      netip.Addr
	Identification uint64 // of the request

	Number   uint32 // of the registration
	Revision uint16 // grows when the selection changes

	Verdict Verdict
	Seen    transports.Description // the request's copy as it arrived

	// Up and Down are selected, client to server and server to client; empty
	// while nothing is selected in this registration.
	Up, Down transports.Name
	// Here says that what is selected is the very carrier by which the reply
	// comes, and not just another of the same encapsulation.
	Here   bool
	Offers []Offer

	Sent       transports.Description // how this reply left
	Received   ReceiveState           // of the server's inbound SA
	PaddedSize uint16                 // size in bytes of this reply's ESP packet if padded; 0 if short

	// Validated says that the server knows that the client receives at this
	// path's address: the cookie need not be echoed.
	Validated bool
	// OneWay says that no request of full size has come by this reply's way: it
	// answers one that asked for it by another (Request.Ways).
	OneWay   bool
	Cookie   Cookie // to be echoed in a confirmation
	Decision uint16 // the last one that the server obeys; 0: none

	// Heard are the encapsulations by which copies of this registration have come,
	// but for what this reply says by itself: where no answer gets back, the client learns that its own do get there.
	Heard []Heard
}

// A Heard is an encapsulation by which copies have arrived.
type Heard struct {
	Encapsulation transports.Name
	Full          bool // the padded one too
}
