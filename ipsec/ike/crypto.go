package ike

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/godwit-net/godwit/ipsec/esp"
)

// entropy is the configured source of random bytes. Should it ever fail, the
// system's, which cannot fail, takes its place.
type entropy struct{ r io.Reader }

func (e entropy) bytes(n int) []byte {
	b := make([]byte, n)
	if e.r != nil {
		if _, err := io.ReadFull(e.r, b); err == nil {
			return b
		}
	}
	rand.Read(b)
	return b
}

// uint64 is never 0, which is not an SPI.
func (e entropy) uint64() uint64 {
	for {
		if v := binary.BigEndian.Uint64(e.bytes(8)); v != 0 {
			return v
		}
	}
}

func (p PRF) hash() func() hash.Hash {
	switch p {
	case PRFHMACSHA384:
		return sha512.New384
	case PRFHMACSHA512:
		return sha512.New
	}
	return sha256.New
}

func (p PRF) valid() bool { return p >= PRFHMACSHA256 && p <= PRFHMACSHA512 }

// size is the length of the output and the preferred length of keys, in bytes.
func (p PRF) size() int { return p.hash()().Size() }

// sum is prf(key, data), the data in several pieces.
func (p PRF) sum(key []byte, data ...[]byte) []byte {
	m := hmac.New(p.hash(), key)
	for _, d := range data {
		m.Write(d)
	}
	return m.Sum(nil)
}

// plus is prf+(key, seed), RFC 7296, Section 2.13:
//
//	T1 = prf (K, S | 0x01)
//	T2 = prf (K, T1 | S | 0x02)
//
// n is at most 255 times the size of the output.
func (p PRF) plus(key []byte, n int, seed ...[]byte) []byte {
	var out, t []byte
	for i := byte(1); len(out) < n; i++ {
		m := hmac.New(p.hash(), key)
		m.Write(t)
		for _, s := range seed {
			m.Write(s)
		}
		m.Write([]byte{i})
		t = m.Sum(nil)
		out = append(out, t...)
	}
	return out[:n]
}

var errICV = errors.New("integrity check failed")

// The lengths of RFC 5282 and RFC 7634, in bytes; the same for all ciphers.
const (
	saltLen = 4
	ivLen   = 8
)

// newAEAD takes key material: the key and 4 bytes of salt.
func newAEAD(alg esp.Algorithm, keymat []byte) (cipher.AEAD, [saltLen]byte) {
	key, salt := keymat[:len(keymat)-saltLen], [saltLen]byte(keymat[len(keymat)-saltLen:])
	var a cipher.AEAD
	var err error
	if alg == esp.ChaCha20Poly1305 {
		a, err = chacha20poly1305.New(key)
	} else {
		var b cipher.Block
		if b, err = aes.NewCipher(key); err == nil {
			a, err = cipher.NewGCM(b)
		}
	}
	if err != nil {
		// Only a key of the wrong length does this, and we cut the key.
		panic(fmt.Sprintf("ike: %v", err))
	}
	return a, salt
}

// A sealer encrypts one direction of an IKE SA. Its initialization vectors
// count up from zero, so none is used twice (RFC 5282, Section 3.1).
type sealer struct {
	aead cipher.AEAD
	salt [saltLen]byte
	iv   uint64
}

func (s *sealer) Seal(dst, plain, ad []byte) []byte {
	var nonce [saltLen + ivLen]byte
	copy(nonce[:], s.salt[:])
	binary.BigEndian.PutUint64(nonce[saltLen:], s.iv)
	s.iv++
	dst = append(dst, nonce[saltLen:]...)
	return s.aead.Seal(dst, nonce[:], plain, ad)
}

// An opener decrypts one direction of an IKE SA.
type opener struct {
	aead cipher.AEAD
	salt [saltLen]byte
}

func (o *opener) Open(body, ad []byte) ([]byte, error) {
	if len(body) < ivLen+o.aead.Overhead() {
		return nil, errICV
	}
	var nonce [saltLen + ivLen]byte
	copy(nonce[:], o.salt[:])
	copy(nonce[saltLen:], body)
	plain, err := o.aead.Open(nil, nonce[:], body[ivLen:], ad)
	if err != nil {
		return nil, errICV
	}
	return plain, nil
}

// ikeKeys are the keys of an IKE SA, RFC 7296, Section 2.14. With an AEAD
// SK_ai and SK_ar are empty (RFC 5282, Section 7).
type ikeKeys struct {
	d, ei, er, pi, pr Secret
}

// newIKEKeys expands SKEYSEED.
func newIKEKeys(prf PRF, alg esp.Algorithm, skeyseed, ni, nr []byte, spiI, spiR uint64) ikeKeys {
	var spis [16]byte
	binary.BigEndian.PutUint64(spis[:], spiI)
	binary.BigEndian.PutUint64(spis[8:], spiR)
	n, e := prf.size(), alg.KeyLen()
	b := prf.plus(skeyseed, 3*n+2*e, ni, nr, spis[:])
	take := func(n int) Secret {
		k := b[:n:n]
		b = b[n:]
		return k
	}
	return ikeKeys{d: take(n), ei: take(e), er: take(e), pi: take(n), pr: take(n)}
}

// childKeys expands KEYMAT, RFC 7296, Section 2.17: the keys of the SA from
// the exchange's initiator to its responder come first.
func childKeys(prf PRF, skD []byte, alg esp.Algorithm, s *secrets) (toResponder, toInitiator Secret) {
	n := alg.KeyLen()
	b := prf.plus(skD, 2*n, s.seed()...)
	return b[:n:n], b[n:]
}

// lowerNonce gives the lower of two nonces, octet by octet (RFC 7296, Section
// 2.8.1).
func lowerNonce(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}
