package ike

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// Hash algorithms of RFC 7427, Section 7, besides the one for signatures of
// whole messages.
const (
	hashSHA256 = 2
	hashSHA384 = 3
	hashSHA512 = 4
)

// minRSABits is the size of the smallest RSA key taken, of either end (RFC 8247,
// Section 4.1.1).
const minRSABits = 2048

// A signatureScheme is a signature algorithm as RFC 7427 names it: by its
// AlgorithmIdentifier in DER.
type signatureScheme struct {
	algorithm  []byte
	hash       uint16
	crypto     crypto.Hash
	x509       x509.SignatureAlgorithm
	fieldBytes int   // of an ECDSA key's curve
	method     uint8 // of peers that know nothing of RFC 7427; 0 for none
}

// oid makes an AlgorithmIdentifier; null adds the parameters that RSA has.
func oid(null bool, b ...byte) []byte {
	a := append([]byte{0x06, byte(len(b))}, b...)
	if null {
		a = append(a, 0x05, 0x00)
	}
	return append([]byte{0x30, byte(len(a))}, a...)
}

// pss makes the AlgorithmIdentifier of RSASSA-PSS (RFC 4055, Section 3.1) with one
// hash for message and mask, and a salt as long as the hash. The hash may have
// parameters of NULL or none: "implementations MUST accept both".
func pss(null bool, saltLen byte, hash ...byte) []byte {
	tagged := func(tag byte, b []byte) []byte { return append([]byte{tag, byte(len(b))}, b...) }
	h := oid(null, hash...)
	mgf1 := append([]byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08}, h...)
	params := slices.Concat(tagged(0xa0, h), tagged(0xa1, tagged(0x30, mgf1)), tagged(0xa2, []byte{0x02, 0x01, saltLen}))
	id := append([]byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a}, tagged(0x30, params)...)
	return tagged(0x30, id)
}

// The hashes' object identifiers.
var (
	oidSHA256 = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}
	oidSHA384 = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02}
	oidSHA512 = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03}
)

// signatureSchemes are the ones known: Ed25519 (RFC 8420), ECDSA (RFC 5758,
// Section 3.2), RSA with PKCS #1 (RFC 4055, Section 5), and, from peers alone, RSA
// with PSS. Of each kind of key the first ones are what we sign with.
var signatureSchemes = []signatureScheme{
	{ed25519Algorithm, hashIdentity, 0, x509.PureEd25519, 0, 0},
	{oid(false, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02), hashSHA256, crypto.SHA256, x509.ECDSAWithSHA256, 32, message.AuthECDSA256},
	{oid(false, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03), hashSHA384, crypto.SHA384, x509.ECDSAWithSHA384, 48, message.AuthECDSA384},
	{oid(false, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04), hashSHA512, crypto.SHA512, x509.ECDSAWithSHA512, 66, message.AuthECDSA521},
	{oid(true, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b), hashSHA256, crypto.SHA256, x509.SHA256WithRSA, 0, message.AuthRSA},
	{oid(true, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c), hashSHA384, crypto.SHA384, x509.SHA384WithRSA, 0, message.AuthRSA},
	{oid(true, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d), hashSHA512, crypto.SHA512, x509.SHA512WithRSA, 0, message.AuthRSA},
	{pss(true, 32, oidSHA256...), hashSHA256, crypto.SHA256, x509.SHA256WithRSAPSS, 0, 0},
	{pss(true, 48, oidSHA384...), hashSHA384, crypto.SHA384, x509.SHA384WithRSAPSS, 0, 0},
	{pss(true, 64, oidSHA512...), hashSHA512, crypto.SHA512, x509.SHA512WithRSAPSS, 0, 0},
	{pss(false, 32, oidSHA256...), hashSHA256, crypto.SHA256, x509.SHA256WithRSAPSS, 0, 0},
	{pss(false, 48, oidSHA384...), hashSHA384, crypto.SHA384, x509.SHA384WithRSAPSS, 0, 0},
	{pss(false, 64, oidSHA512...), hashSHA512, crypto.SHA512, x509.SHA512WithRSAPSS, 0, 0},
}

// schemesFor gives how a key may sign, the best first.
func schemesFor(key crypto.Signer) ([]signatureScheme, error) {
	switch k := key.Public().(type) {
	case ed25519.PublicKey:
		return signatureSchemes[:1], nil
	case *ecdsa.PublicKey:
		for i, s := range signatureSchemes {
			if s.fieldBytes == (k.Curve.Params().BitSize+7)/8 && k.Curve != elliptic.P224() {
				return signatureSchemes[i : i+1], nil
			}
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits: %d are the least", k.N.BitLen(), minRSABits)
		}
		return signatureSchemes[4:7], nil
	}
	return nil, errors.New("a certificate's key has to be RSA, ECDSA on P-256, P-384 or P-521, or Ed25519")
}

// sign makes an AUTH payload with a certificate's key.
func (s *Session) sign(key crypto.Signer, octets []byte) (*message.Auth, error) {
	schemes, err := schemesFor(key)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(schemes, func(c signatureScheme) bool { return slices.Contains(s.first.hashes, c.hash) })
	if i >= 0 {
		scheme := schemes[i]
		signature, err := key.Sign(rand.Reader, digest(scheme.crypto, octets), scheme.crypto)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		// ASN.1 Length (8), AlgorithmIdentifier, signature. RFC 7427, Section 3
		data := append([]byte{byte(len(scheme.algorithm))}, scheme.algorithm...)
		return &message.Auth{Method: message.AuthDigitalSignature, Data: append(data, signature...)}, nil
	}
	// A peer that knows nothing of RFC 7427 knows the methods from before it.
	scheme := schemes[0]
	a := &message.Auth{Method: scheme.method}
	switch scheme.method {
	case message.AuthRSA:
		// "implementations that support this type [...] SHOULD use SHA-1 as the
		// default hash function". RFC 7296, Section 3.8. Nonces of both ends are
		// under it, so that nobody can prepare a collision.
		a.Data, err = key.Sign(rand.Reader, digest(crypto.SHA1, octets), crypto.SHA1)
	case message.AuthECDSA256, message.AuthECDSA384, message.AuthECDSA521:
		if a.Data, err = key.Sign(rand.Reader, digest(scheme.crypto, octets), scheme.crypto); err == nil {
			a.Data, err = joined(a.Data, scheme.fieldBytes)
		}
	default:
		return nil, fmt.Errorf("the peer does not verify signatures with %v", scheme.x509)
	}
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return a, nil
}

// digest is the hash of octets, or they themselves where a scheme takes the whole
// message.
func digest(h crypto.Hash, octets []byte) []byte {
	if h == 0 {
		return octets
	}
	d := h.New()
	d.Write(octets)
	return d.Sum(nil)
}

// joined turns an ECDSA signature in DER into r and s of a fixed length each, one
// after the other (RFC 4754, Section 7).
func joined(der []byte, size int) ([]byte, error) {
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) > 0 {
		return nil, errors.New("an ECDSA signature that cannot be read")
	}
	out := make([]byte, 2*size)
	v.R.FillBytes(out[:size])
	v.S.FillBytes(out[size:])
	return out, nil
}

// verifySignature checks that the key of a certificate signed the octets.
func verifySignature(leaf *x509.Certificate, auth *message.Auth, octets []byte) error {
	rsaKey, isRSA := leaf.PublicKey.(*rsa.PublicKey)
	if isRSA && rsaKey.N.BitLen() < minRSABits {
		return fmt.Errorf("an RSA key of %d bits: %d are the least", rsaKey.N.BitLen(), minRSABits)
	}
	switch auth.Method {
	case message.AuthDigitalSignature:
		if len(auth.Data) < 1 || len(auth.Data) < 1+int(auth.Data[0]) {
			return errors.New("no signature")
		}
		algorithm, signature := auth.Data[1:1+int(auth.Data[0])], auth.Data[1+int(auth.Data[0]):]
		for _, scheme := range signatureSchemes {
			if !bytes.Equal(scheme.algorithm, algorithm) {
				continue
			}
			if err := leaf.CheckSignature(scheme.x509, octets, signature); err != nil {
				return fmt.Errorf("bad signature: %w", err)
			}
			return nil
		}
		return errors.New("an unknown signature algorithm")
	case message.AuthRSA:
		if !isRSA {
			return errors.New("a signature by RSA, but the certificate has another key")
		}
		// Which hash it is, is not said.
		for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			if rsa.VerifyPKCS1v15(rsaKey, h, digest(h, octets), auth.Data) == nil {
				return nil
			}
		}
		return errors.New("bad signature")
	}
	key, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey)
	for _, scheme := range signatureSchemes {
		if scheme.fieldBytes == 0 || scheme.method != auth.Method {
			continue
		}
		if n := scheme.fieldBytes; !isECDSA || (key.Curve.Params().BitSize+7)/8 != n || len(auth.Data) != 2*n ||
			!ecdsa.Verify(key, digest(scheme.crypto, octets), new(big.Int).SetBytes(auth.Data[:n]), new(big.Int).SetBytes(auth.Data[n:])) {
			return errors.New("bad signature")
		}
		return nil
	}
	return fmt.Errorf("authentication method %d instead of a certificate's signature", auth.Method)
}
