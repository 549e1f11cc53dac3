package ike

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Group is a key exchange method by its IANA number.
type Group uint16

// The key exchange methods implemented. MLKEM768 withstands quantum computers
// but is young, so it only comes in addition to one of the others (RFC 9370).
const (
	P256     Group = 19 // RFC 5903
	X25519   Group = 31 // RFC 8031
	MLKEM768 Group = 36 // draft-ietf-ipsecme-ikev2-mlkem; FIPS 203
)

// String gives the method's usual name.
func (g Group) String() string {
	switch g {
	case P256:
		return "P-256"
	case X25519:
		return "X25519"
	case MLKEM768:
		return "ML-KEM-768"
	}
	return fmt.Sprintf("group %d", uint16(g))
}

// Groups is the key exchange methods of one agreement, in the order in which
// they took place.
type Groups []Group

// String joins the names, as in X25519+ML-KEM-768.
func (gs Groups) String() string {
	names := make([]string, len(gs))
	for i, g := range gs {
		names[i] = g.String()
	}
	return strings.Join(names, "+")
}

// PostQuantum reports whether the keys stay secret from a quantum computer.
func (gs Groups) PostQuantum() bool { return slices.Contains(gs, MLKEM768) }

var errKeyExchange = errors.New("key exchange data is not valid")

func (g Group) curve() ecdh.Curve {
	switch g {
	case P256:
		return ecdh.P256()
	case X25519:
		return ecdh.X25519()
	}
	return nil
}

// A keyExchange is the initiator's half of a key exchange: the key of a curve or
// that of the KEM.
type keyExchange struct {
	group Group
	key   *ecdh.PrivateKey
	kem   *mlkem.DecapsulationKey768
}

func newKeyExchange(g Group, e entropy) *keyExchange {
	for {
		if g == MLKEM768 {
			k, err := mlkem.NewDecapsulationKey768(e.bytes(mlkem.SeedSize))
			if err != nil {
				// Only a seed of the wrong length does this.
				panic(fmt.Sprintf("ike: %v", err))
			}
			return &keyExchange{group: g, kem: k}
		}
		// Both curves have 32-byte private keys; for P-256 a few values are
		// out of range.
		if k, err := g.curve().NewPrivateKey(e.bytes(32)); err == nil {
			return &keyExchange{group: g, key: k}
		}
	}
}

// public is the Key Exchange Data: for P-256 the two coordinates (RFC 5903,
// Section 7), for X25519 the u-coordinate (RFC 8031, Section 3.1), for ML-KEM
// the encapsulation key of 1,184 bytes.
func (k *keyExchange) public() []byte {
	if k.kem != nil {
		return k.kem.EncapsulationKey().Bytes()
	}
	b := k.key.PublicKey().Bytes()
	if k.group == P256 {
		b = b[1:] // the octet that says "uncompressed"
	}
	return b
}

// shared is g^ir: for P-256 the x-coordinate alone, RFC 5903, Section 7. It
// refuses points that are not on the curve and an X25519 result of zero (RFC
// 8031, Section 3.2). For ML-KEM it is what the peer's ciphertext holds, or, as
// FIPS 203 wants it, something that nobody knows if the ciphertext is false;
// only its length is checked.
func (k *keyExchange) shared(peer []byte) ([]byte, error) {
	if k.kem != nil {
		s, err := k.kem.Decapsulate(peer)
		if err != nil {
			return nil, errKeyExchange
		}
		return s, nil
	}
	if k.group == P256 {
		peer = append([]byte{4}, peer...)
	}
	pub, err := k.group.curve().NewPublicKey(peer)
	if err != nil {
		return nil, errKeyExchange
	}
	s, err := k.key.ECDH(pub)
	if err != nil {
		return nil, errKeyExchange
	}
	return s, nil
}

// answer is the responder's half of a key exchange: what to send back for the
// initiator's data, and the shared secret. For ML-KEM that is a ciphertext of
// 1,088 bytes.
func (g Group) answer(e entropy, peer []byte) (public, shared []byte, err error) {
	if g == MLKEM768 {
		k, err := mlkem.NewEncapsulationKey768(peer)
		if err != nil {
			return nil, nil, errKeyExchange
		}
		shared, public = k.Encapsulate()
		return public, shared, nil
	}
	k := newKeyExchange(g, e)
	if shared, err = k.shared(peer); err != nil {
		return nil, nil, err
	}
	return k.public(), shared, nil
}

// secrets is what the keys of one agreement are made from: the nonces, and the
// results of its key exchanges.
type secrets struct {
	ni, nr []byte
	shared []byte   // of the first key exchange; nil for a Child SA without one
	added  [][]byte // of the additional ones
}

// seed puts them in the order of RFC 9370, Section 2.2.4, which without
// additional key exchanges is that of RFC 7296:
//
//	SK(0) | Ni | Nr | SK(1) | ... | SK(n)
func (s *secrets) seed() [][]byte {
	return append([][]byte{s.shared, s.ni, s.nr}, s.added...)
}

func (s *secrets) low() []byte { return lowerNonce(s.ni, s.nr) }
