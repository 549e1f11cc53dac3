package ike

import (
	"github.com/godwit-net/godwit/ipsec/esp"
)

// A Group is a key exchange method by its IANA number.
type Group uint16

// The groups implemented.
const (
	P256   Group = 19 // RFC 5903
	X25519 Group = 31 // RFC 8031
)

// A PRF is a pseudorandom function by its IANA number.
type PRF uint16

// The pseudorandom functions implemented, RFC 4868.
const (
	PRFHMACSHA256 PRF = 5
	PRFHMACSHA384 PRF = 6
	PRFHMACSHA512 PRF = 7
)

// A Proposal lists what may be combined for an IKE SA or a Child SA, each list
// in order of preference.
type Proposal struct {
	Ciphers []esp.Algorithm
	PRFs    []PRF // IKE only

	// Groups are required in an IKE proposal. In an ESP proposal they ask for a
	// key exchange of its own at each rekeying (perfect forward secrecy); none
	// means that the keys come from the IKE SA alone.
	Groups []Group

	// ESN is for ESP only: true asks for extended sequence numbers. Empty
	// means true, then false.
	ESN []bool
}
