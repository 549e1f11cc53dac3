// Package esp seals and opens ESP packets (RFC 4303) with AEAD ciphers.
//
// It does no I/O and keeps no timers: an SA numbers its packets, the caller
// decides when to rekey and which encapsulation carries them.
//
// # Limitations
//
// AH (RFC 4302), transport mode and ciphers that are not AEAD are not
// implemented. Neither is the search for the right upper half of an extended
// sequence number after 2^32 packets in a row were lost (RFC 4303, Appendix
// A2.3): each packet costs one decryption at most.
package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// An Algorithm is an AEAD cipher with a 16-byte ICV.
type Algorithm uint8

// The algorithms, by the names of RFC 4106 and RFC 7634.
const (
	AES128GCM Algorithm = iota + 1
	AES256GCM
	ChaCha20Poly1305
)

// Errors that callers test for. Those that come from Open say nothing about
// the packet that its sender could not see for himself.
var (
	// ErrExhausted: the SA has used its last sequence number (RFC 4303,
	// Section 3.3.3) and can seal nothing more.
	ErrExhausted = errors.New("the SA's sequence numbers are used up")
	// ErrReplay: the packet came before, or is older than the replay window.
	ErrReplay = errors.New("the packet is a replay or too old")
	// ErrAuth: the ICV does not fit; the packet was altered or is not of this SA.
	ErrAuth = errors.New("the packet does not authenticate")
	// ErrMalformed: the packet breaks the format.
	ErrMalformed = errors.New("the packet is malformed")
)

// String gives the algorithm's name with its key size in bits, for logs.
func (a Algorithm) String() string {
	switch a {
	case AES128GCM:
		return "aes128-gcm16"
	case AES256GCM:
		return "aes256-gcm16"
	case ChaCha20Poly1305:
		return "chacha20-poly1305"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Valid reports that this package implements the algorithm.
func (a Algorithm) Valid() bool { return a >= AES128GCM && a <= ChaCha20Poly1305 }

// KeyLen is the length in bytes of the key material that an SA takes: the key
// and after it the salt of 4 bytes (RFC 4106, Section 8.1; RFC 7634, Section
// 2). It is 0 for an algorithm that is not Valid.
func (a Algorithm) KeyLen() int {
	switch a {
	case AES128GCM:
		return 16 + saltLen
	case AES256GCM, ChaCha20Poly1305:
		return 32 + saltLen
	}
	return 0
}

// A key is one SA's cipher with its salt. The key material itself is not kept.
type key struct {
	aead cipher.AEAD
	salt [saltLen]byte
}

func newKey(spi uint32, alg Algorithm, keymat []byte) (key, error) {
	var k key
	// "The SPI value of zero (0) is reserved for local, implementation-specific
	// use and MUST NOT be sent on the wire." RFC 4303, Section 2.1
	if spi == 0 {
		return k, errors.New("SPI 0 is reserved")
	}
	if !alg.Valid() {
		return k, fmt.Errorf("%v is unknown", alg)
	}
	if len(keymat) != alg.KeyLen() {
		return k, fmt.Errorf("%v takes %d bytes of key material, not %d", alg, alg.KeyLen(), len(keymat))
	}
	secret := keymat[:len(keymat)-saltLen]
	copy(k.salt[:], keymat[len(secret):])
	if alg == ChaCha20Poly1305 {
		aead, err := chacha20poly1305.New(secret)
		k.aead = aead
		return k, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return k, err
	}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}
