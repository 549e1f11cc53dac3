// Package ike speaks IKEv2 (RFC 7296) as initiator and as responder.
//
// It is a state machine: it takes the time and messages, and gives back events
// and the time at which it wants to be woken. It opens no sockets, keeps no
// timers and starts no goroutines; one goroutine of the caller owns a Session
// or a Responder. Which encapsulation carries a message is the caller's matter:
// a Path that came in with a request goes out with its response, unread.
//
// # Limitations
//
// Of EAP there is MSCHAPv2 alone. Revocation of certificates and IKEv1 are not
// implemented.
package ike

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/ipsec/esp"
)

// A Path is the caller's name for the way a message came or goes. This package
// never looks inside.
type Path any

// IDType is the type of an identification payload, RFC 7296, Section 3.5.
type IDType uint8

// Identification types.
const (
	IDIPv4Addr   IDType = 1
	IDFQDN       IDType = 2
	IDRFC822Addr IDType = 3
	IDIPv6Addr   IDType = 5
	IDDERASN1DN  IDType = 9
	IDDERASN1GN  IDType = 10
	IDKeyID      IDType = 11
)

// An Identity is what an end calls itself in IDi or IDr.
type Identity struct {
	Type IDType
	Data []byte
}

// KeyIdentity is what an end with a raw public key calls itself: the SHA-256
// of its SubjectPublicKeyInfo, as ID_KEY_ID. The error is for keys of a wrong
// size.
func KeyIdentity(key ed25519.PublicKey) (Identity, error) {
	if len(key) != ed25519.PublicKeySize {
		return Identity{}, fmt.Errorf("public key of %d bytes, not %d", len(key), ed25519.PublicKeySize)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Identity{}, err
	}
	sum := sha256.Sum256(der)
	return Identity{Type: IDKeyID, Data: sum[:]}, nil
}

// A Secret is key material. It never shows in logs or in %v.
type Secret []byte

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("redacted") }

// String hides the secret.
func (Secret) String() string { return "redacted" }

// GoString hides the secret.
func (Secret) GoString() string { return "redacted" }

// Config is what both roles share. The zero value of a field means the default.
type Config struct {
	Random io.Reader    // nonces, SPIs, keys; crypto/rand.Reader by default
	Logger *slog.Logger // nil discards

	IKEProposals []Proposal // in order of preference
	ESPProposals []Proposal
	// PostQuantum decides what the proposals are without a choice.
	PostQuantum PostQuantum

	Local Identity
	// One of these proves this end's identity.
	PrivateKey ed25519.PrivateKey // raw public key, RFC 7670 and RFC 8420
	PSK        Secret             // shared key, RFC 7296, Section 2.15
	// Certificates are this end's X.509 certificate in DER and those between it
	// and a root, in this order; CertificateKey signs. Both or neither.
	Certificates   [][]byte
	CertificateKey crypto.Signer
	// GetCertificate, if it is not nil and gives a certificate, goes before these two,
	// each time that one is shown; for those that are renewed. It must not wait.
	GetCertificate func() (chain [][]byte, key crypto.Signer)

	// Roots are the certification authorities that peers' certificates may come
	// from; an initiator with Roots takes nothing but a certificate.
	Roots []*x509.Certificate
	// SystemRoots takes the authorities that this system trusts in place of Roots.
	// An initiator needs InitiatorConfig.Remote with it: they vouch for anyone.
	SystemRoots bool

	// NewSPI gives an unused SPI for an inbound ESP SA; the caller owns that
	// space. It is required.
	NewSPI func() uint32

	VendorIDs [][]byte // sent in IKE_SA_INIT

	// FragmentSize is the most bytes of an encrypted message that goes whole to a
	// peer that takes fragments (RFC 7383), and of each fragment: at least 256,
	// 1200 by default; negative neither sends nor takes fragments.
	FragmentSize int

	// MOBIKE lets an initiator offer, and a responder accept, that the addresses
	// of SAs change (RFC 4555).
	MOBIKE bool

	// KeyLog, if set, gets the keys of each IKE SA and each Child SA. It undoes
	// all protection and is for debugging alone.
	KeyLog KeyLog

	IKELifetime   time.Duration // rekey the IKE SA after about this long; 4 h by default, negative never
	ChildLifetime time.Duration // rekey a Child SA after about this long; 1 h by default, negative never

	// RetransmitAfter is the wait before the first retransmission of a
	// request, 500 ms by default. It doubles with each one up to 8 s.
	RetransmitAfter time.Duration
	// RetransmitFor ends the IKE SA when a request had no answer for so long;
	// 60 s by default, negative never.
	RetransmitFor time.Duration
}

// A KeyLog takes keys of SAs, to decrypt captures with. It is called on the
// session's goroutine and must not keep it long.
type KeyLog interface {
	// IKE gets what both ends of an IKE SA encrypt with, salts at the keys' ends.
	IKE(initiatorSPI, responderSPI uint64, initiatorKey, responderKey Secret, a esp.Algorithm)
	// ESP gets what one direction of a Child SA is encrypted with.
	ESP(spi uint32, key Secret, a esp.Algorithm)
}

// An InitiatorConfig makes a Session that starts the exchange.
type InitiatorConfig struct {
	Config
	Remote  *Identity         // IDr to ask for and insist on; nil takes any that authenticates
	PeerKey ed25519.PublicKey // pinned; required unless PSK is set

	// Login proves this end's identity by name and password, once the peer has
	// proven its own by a certificate of Roots or SystemRoots. nil has none.
	Login *Login

	// Enrolment is shown to a responder that does not know PrivateKey yet, so that
	// it may learn it; nil shows nothing. At most 1024 bytes.
	Enrolment []byte

	// Mark gives the end of the first message's nonce, of which the beginning and
	// the SPI are known; nil adds nothing. At most 128 bytes.
	Mark func(now time.Time, spi uint64, random []byte) []byte

	// Childless makes the first Child SA after IKE_AUTH instead of in it, with a
	// responder that knows RFC 6023, as some demand. It costs a round trip.
	Childless bool

	Request  Configuration     // CFG_REQUEST; nil sends none
	TSi, TSr []TrafficSelector // nil means all of IPv4 and IPv6
}

// A Peer is what the responder knows of an initiator.
type Peer struct {
	Name      string
	PublicKey ed25519.PublicKey // pinned, for raw public keys
	PSK       Secret            // for shared keys
	// Certificate lets the peer prove itself by a certificate of Config.Roots
	// that bears its identity.
	Certificate bool
	// NTHash is eap.NTHash of the password, for peers that log in by name.
	NTHash Secret
	// Local is what we call ourselves to this peer; Config.Local if it is nil.
	Local *Identity
	// Data is the caller's own.
	Data any
}

// A ResponderConfig makes a Responder.
type ResponderConfig struct {
	Config

	// Lookup finds the peer that claims to be id; key is the raw public key
	// that it showed, nil when it uses a shared key. An error refuses it with
	// AUTHENTICATION_FAILED. The claim is not yet proven when Lookup runs.
	// An error that wraps a Reason tells it to a peer that can prove its raw key.
	Lookup func(id Identity, key ed25519.PublicKey) (*Peer, error)

	// Enrol decides about a peer that Lookup does not know, that has proven to
	// hold key, and that showed proof (InitiatorConfig.Enrolment). nil takes none.
	Enrol func(key ed25519.PublicKey, proof []byte) (*Peer, error)

	// Assign answers a CFG_REQUEST of an authenticated peer. An error refuses
	// the Child SA with INTERNAL_ADDRESS_FAILURE. A peer that asks for no
	// address gets FAILED_CP_REQUIRED, unless Assign is nil.
	Assign func(p *Peer, request Configuration) (Configuration, error)

	// Logins lets peers in by name and password; nil does not. It takes
	// Config.Certificates.
	Logins *Logins

	// TSr is what this end lets peers reach, and TSi the source addresses that
	// peers may use when Assign is nil; with Assign they may use what it gave.
	// nil means all of IPv4 and IPv6.
	TSi, TSr []TrafficSelector

	// TokenSecret, at least 32 bytes that stay the same when this end is started
	// anew, lets initiators see at once that their IKE SAs are lost (RFC 6290).
	// No two Responders that are reached at one address may share it. nil: they
	// are told nothing.
	TokenSecret Secret

	// CookieThreshold is the number of half-open SAs from which on COOKIE is
	// demanded (RFC 7296, Section 2.6); 64 by default, negative always.
	CookieThreshold int
	// HalfOpenLimit bounds half-open SAs; further IKE_SA_INIT requests are
	// dropped. 4096 by default. A half-open SA lives 30 s.
	HalfOpenLimit int
}

// A Login is a name and a password for EAP-MSCHAPv2 (RFC 7296, Section 2.16).
type Login struct {
	Name     string // 1 to 256 bytes
	Password Secret // UTF-8
}

// Logins is how a responder lets initiators in by name and password.
type Logins struct {
	// Local is what this end calls itself to them; its certificate bears it.
	Local Identity
	// Lookup finds the user of a name that came without the domain before a
	// backslash. An error, or a Peer without NTHash, looks to the initiator as a
	// wrong password does. What the initiator calls itself in IDi counts for
	// nothing: it may be any address.
	Lookup func(name string) (*Peer, error)
}

// AttributeType is a configuration attribute type, RFC 7296, Section 3.15.1.
type AttributeType uint16

// Configuration attribute types.
const (
	InternalIP4Address AttributeType = 1
	InternalIP4Netmask AttributeType = 2
	InternalIP4DNS     AttributeType = 3
	InternalIP6Address AttributeType = 8
	InternalIP6DNS     AttributeType = 10
	ApplicationVersion AttributeType = 7
	// InternalHomeAgent4 and 6 are ours, from the private range: the gateway's
	// own inner addresses, where registrations and the inner SOCKS go.
	InternalHomeAgent4 AttributeType = 16384 + 'g'
	InternalHomeAgent6 AttributeType = 16384 + 'G'
)

// An Attribute is one configuration attribute; its value may be empty in a request.
type Attribute struct {
	Type  AttributeType
	Value []byte
}

// A Configuration is the attributes of a configuration payload, in order.
type Configuration []Attribute

// Role says who started an exchange or an IKE SA.
type Role uint8

// The roles of RFC 7296.
const (
	RoleInitiator Role = iota + 1
	RoleResponder
)

// A Child is a pair of ESP SAs, one a direction.
type Child struct {
	InboundSPI  uint32 // ours: packets to us carry it
	OutboundSPI uint32 // the peer's
	Algorithm   esp.Algorithm
	ESN         bool
	InboundKey  Secret // key material with the salt, esp.Algorithm.KeyLen bytes
	OutboundKey Secret

	TSLocal, TSRemote []TrafficSelector

	// Role in the exchange that made the child. The responder of a rekeying
	// keeps sending on the old child until a packet comes in on the new one or
	// the old one is deleted, so that nothing arrives before it is understood.
	Role Role
	// Replaces is the inbound SPI of the child that this one takes over from;
	// zero for the first.
	Replaces uint32
}

// An Event is something the owner has to do or may want to know.
type Event interface{ event() }

// Send asks for a message to be sent.
type Send struct {
	Message []byte // must not be changed; the same bytes may be sent again
	// Path is where the request came from, for a response; nil for our own
	// requests, which the owner sends over what it thinks best: everything at
	// once before the IKE SA is established.
	Path Path
	// Fragment counts the fragments of a message from 0 (RFC 7383). They come in
	// order, one Send each; all of them are needed.
	Fragment int
	// Retransmission is set when the same bytes went out before.
	Retransmission bool
}

// Established tells that the peer is authenticated.
type Established struct {
	Peer          *Peer // at a responder: what Lookup gave
	Remote        Identity
	Configuration Configuration // at an initiator: CFG_REPLY; at a responder: what was assigned
	VendorIDs     [][]byte      // the peer's
	RoundTrip     time.Duration // of IKE_AUTH at an initiator; 0 at a responder or after a retransmission
}

// ChildCreated tells that a pair of SAs is agreed; install both. It comes before
// the Send, if any, that lets the peer use them.
type ChildCreated struct{ Child Child }

// ChildDeleted tells that a pair of SAs is gone: send nothing more on it. Packets
// that the peer sent before it knew may still be under way, so the inbound SA
// is worth keeping for a few seconds. After a collision of rekeyings the pair
// that goes may be one that took over nothing.
type ChildDeleted struct{ InboundSPI uint32 }

// Alive tells that the peer answered a liveness check or any other request.
type Alive struct {
	RoundTrip time.Duration // 0 when the request had to be sent again
	Probed    bool          // the peer cannot have answered without the question
	Moved     bool          // it was the answer to UpdateAddresses
}

// Moved tells that the peer is where the request came from that is in hand, and
// wants all SAs to follow (RFC 4555, Section 3.5). That it receives there is
// not proven: see Session.Probe.
type Moved struct{}

// Closed ends the Session; ChildDeleted came before for each child. Err is nil
// after a delete by either end. Else it matches *NotifyError when the peer
// refused, *RefusalError when we did, ErrTimeout when the peer was silent,
// ErrPeerKey or ErrAuthentication when it is not who it should be, ErrReplaced
// when it came anew.
type Closed struct{ Err error }

func (Send) event()         {}
func (Established) event()  {}
func (ChildCreated) event() {}
func (ChildDeleted) event() {}
func (Alive) event()        {}
func (Moved) event()        {}
func (Closed) event()       {}

// SPIs reads the initiator's and responder's SPI from an IKE message header
// without checking the rest; ok is false for less than a header.
func SPIs(msg []byte) (initiator, responder uint64, ok bool) {
	if len(msg) < 28 {
		return 0, 0, false
	}
	for i := range 8 {
		initiator = initiator<<8 | uint64(msg[i])
		responder = responder<<8 | uint64(msg[8+i])
	}
	return initiator, responder, true
}

// AddressAttribute makes an attribute from an address as RFC 7296 encodes it:
// 4 bytes, or for INTERNAL_IP6_ADDRESS 16 bytes and a prefix length of 128.
func AddressAttribute(t AttributeType, a netip.Addr) Attribute {
	v := a.AsSlice()
	if t == InternalIP6Address {
		v = append(v, 128)
	}
	return Attribute{Type: t, Value: v}
}

// Address reads the first attribute of type t; ok is false if there is none
// or it holds no address.
func (c Configuration) Address(t AttributeType) (a netip.Addr, ok bool) {
	for _, at := range c {
		if at.Type != t {
			continue
		}
		v := at.Value
		if t == InternalIP6Address && len(v) == 17 {
			v = v[:16]
		}
		return netip.AddrFromSlice(v)
	}
	return netip.Addr{}, false
}
