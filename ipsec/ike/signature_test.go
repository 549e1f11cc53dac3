package ike

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// What a gateway may sign with that we do not: PSS in both forms, and hashes that
// nobody named.
func TestVerifySignature(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	octets := []byte("octets")
	of := func(h crypto.Hash) *rsa.PSSOptions {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
	}
	data := func(algorithm []byte, key crypto.Signer, h crypto.Hash, o crypto.SignerOpts) []byte {
		sig, err := key.Sign(rand.Reader, digest(h, octets), o)
		if err != nil {
			t.Fatal(err)
		}
		if algorithm == nil {
			return sig
		}
		return append(append([]byte{byte(len(algorithm))}, algorithm...), sig...)
	}
	// RFC 7427, Appendix A.4.3.
	const pssSHA256 = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
	if got := fmt.Sprintf("%x", pss(true, 32, oidSHA256...)); got != pssSHA256 {
		t.Errorf("RSASSA-PSS with SHA-256 is %s", got)
	}
	p256 := ecdsaKey(t, elliptic.P256())
	raw, err := joined(data(nil, p256, crypto.SHA256, crypto.SHA256), 32)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		key    crypto.Signer
		method uint8
		data   []byte
		good   bool
	}{
		{"PSS", rsaKey, message.AuthDigitalSignature, data(pss(true, 32, oidSHA256...), rsaKey, crypto.SHA256, of(crypto.SHA256)), true},
		{"PSS without NULL", rsaKey, message.AuthDigitalSignature, data(pss(false, 64, oidSHA512...), rsaKey, crypto.SHA512, of(crypto.SHA512)), true},
		{"PSS, another hash", rsaKey, message.AuthDigitalSignature, data(pss(true, 32, oidSHA256...), rsaKey, crypto.SHA384, of(crypto.SHA384)), false},
		{"RSA with SHA-256 unnamed", rsaKey, message.AuthRSA, data(nil, rsaKey, crypto.SHA256, crypto.SHA256), true},
		{"RSA of 1024 bits", small, message.AuthRSA, data(nil, small, crypto.SHA1, crypto.SHA1), false},
		{"RSA by another's key", rsaKey, message.AuthRSA, data(nil, small, crypto.SHA1, crypto.SHA1), false},
		{"RSA of an ECDSA key", p256, message.AuthRSA, data(nil, rsaKey, crypto.SHA1, crypto.SHA1), false},
		{"ECDSA", p256, message.AuthECDSA256, raw, true},
		{"ECDSA cut short", p256, message.AuthECDSA256, raw[:63], false},
		{"ECDSA of another curve", p256, message.AuthECDSA384, append(make([]byte, 32), raw...), false},
		{"ECDSA of an RSA key", rsaKey, message.AuthECDSA256, raw, false},
		{"ECDSA of zeros", p256, message.AuthECDSA256, make([]byte, 64), false},
		{"no algorithm", p256, message.AuthDigitalSignature, nil, false},
		{"algorithm cut short", p256, message.AuthDigitalSignature, []byte{200, 1}, false},
		{"unknown method", p256, 200, raw, false},
	} {
		leaf := issue(t, tt.key, nil, nil, late, "x")
		if err := verifySignature(leaf, &message.Auth{Method: tt.method, Data: tt.data}, octets); (err == nil) != tt.good {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := schemesFor(small); err == nil {
		t.Error("we sign with 1024 bits")
	}
}
