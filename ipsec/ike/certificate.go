package ike

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// maxCertificates bounds how many certificates of a peer are looked at.
const maxCertificates = 12

// Hash algorithms of RFC 7427, Section 7, besides the one for signatures of
// whole messages.
const (
	hashSHA256 = 2
	hashSHA384 = 3
	hashSHA512 = 4
)

// A signatureScheme is a signature algorithm as RFC 7427 names it: by its
// AlgorithmIdentifier in DER.
type signatureScheme struct {
	algorithm  []byte
	hash       uint16
	crypto     crypto.Hash
	x509       x509.SignatureAlgorithm
	fieldBytes int // of the curve that we sign with it on; 0 for those that we only verify
}

// oid makes an AlgorithmIdentifier; null adds the parameters that RSA has.
func oid(null bool, b ...byte) []byte {
	a := append([]byte{0x06, byte(len(b))}, b...)
	if null {
		a = append(a, 0x05, 0x00)
	}
	return append([]byte{0x30, byte(len(a))}, a...)
}

// signatureSchemes are the ones known: Ed25519 (RFC 8420), ECDSA (RFC 5758,
// Section 3.2), and, for peers alone, RSA with PKCS #1 (RFC 4055, Section 5).
var signatureSchemes = []signatureScheme{
	{ed25519Algorithm, hashIdentity, 0, x509.PureEd25519, 0},
	{oid(false, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02), hashSHA256, crypto.SHA256, x509.ECDSAWithSHA256, 32},
	{oid(false, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03), hashSHA384, crypto.SHA384, x509.ECDSAWithSHA384, 48},
	{oid(false, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04), hashSHA512, crypto.SHA512, x509.ECDSAWithSHA512, 66},
	{oid(true, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b), hashSHA256, crypto.SHA256, x509.SHA256WithRSA, 0},
	{oid(true, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c), hashSHA384, crypto.SHA384, x509.SHA384WithRSA, 0},
	{oid(true, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d), hashSHA512, crypto.SHA512, x509.SHA512WithRSA, 0},
}

// schemeFor picks how a key signs.
func schemeFor(key crypto.Signer) (signatureScheme, error) {
	switch k := key.Public().(type) {
	case ed25519.PublicKey:
		return signatureSchemes[0], nil
	case *ecdsa.PublicKey:
		for _, s := range signatureSchemes {
			if s.fieldBytes == (k.Curve.Params().BitSize+7)/8 && k.Curve != elliptic.P224() {
				return s, nil
			}
		}
	}
	return signatureScheme{}, errors.New("a certificate's key has to be Ed25519, or ECDSA on P-256, P-384 or P-521")
}

// checkCertificates looks at this end's own certificate.
func (c *Config) checkCertificates() error {
	if len(c.Certificates) == 0 {
		return nil
	}
	if c.CertificateKey == nil || len(c.Certificates) > maxCertificates {
		return fmt.Errorf("ike: %d certificates, or no key for them", len(c.Certificates))
	}
	_, err := schemeFor(c.CertificateKey)
	return err
}

// certificateProof makes CERT and AUTH payloads, the certificate that the key
// belongs to first: "the first certificate MUST contain the public key used to
// verify the AUTH field". RFC 7296, Section 3.6
func (s *Session) certificateProof(octets []byte) ([]message.Payload, error) {
	scheme, err := schemeFor(s.c.CertificateKey)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.first.hashes, scheme.hash) {
		return nil, fmt.Errorf("the peer does not verify signatures with %v", scheme.x509)
	}
	digest := octets
	if scheme.crypto != 0 {
		h := scheme.crypto.New()
		h.Write(octets)
		digest = h.Sum(nil)
	}
	signature, err := s.c.CertificateKey.Sign(rand.Reader, digest, scheme.crypto)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var ps []message.Payload
	for _, der := range s.c.Certificates {
		ps = append(ps, &message.Cert{Encoding: message.CertX509, Data: der})
	}
	// ASN.1 Length (8), AlgorithmIdentifier, signature. RFC 7427, Section 3
	data := append([]byte{byte(len(scheme.algorithm))}, scheme.algorithm...)
	return append(ps, &message.Auth{Method: message.AuthDigitalSignature, Data: append(data, signature...)}), nil
}

// authorities names the certification authorities that we trust: SHA-1 hashes
// of their keys (RFC 7296, Section 3.7).
func (c *Config) authorities() []message.Payload {
	if len(c.Roots) == 0 {
		return nil
	}
	var data []byte
	for _, r := range c.Roots {
		sum := sha1.Sum(r.RawSubjectPublicKeyInfo)
		data = append(data, sum[:]...)
	}
	return []message.Payload{&message.CertRequest{Encoding: message.CertX509, Data: data}}
}

// showsCertificate tells whether there is an X.509 certificate among payloads.
func showsCertificate(ps []message.Payload) bool {
	return slices.ContainsFunc(ps, func(p message.Payload) bool {
		c, ok := p.(*message.Cert)
		return ok && c.Encoding == message.CertX509
	})
}

// verifyCertificate checks that a certificate of the peer leads to one of our
// roots, is about the identity claimed, and signed the octets.
func (s *Session) verifyCertificate(now time.Time, sa *ikeSA, id *message.ID, auth *message.Auth, ps []message.Payload) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), ErrAuthentication)
	}
	if auth.Method != message.AuthDigitalSignature {
		return fail("authentication method %d instead of a certificate's signature", auth.Method)
	}
	var leaf *x509.Certificate
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range s.c.Roots {
		roots.AddCert(r)
	}
	n := 0
	for _, p := range ps {
		c, ok := p.(*message.Cert)
		if !ok || c.Encoding != message.CertX509 {
			continue
		}
		if n++; n > maxCertificates {
			return fail("more than %d certificates", maxCertificates)
		}
		cert, err := x509.ParseCertificate(bytes.Clone(c.Data))
		switch {
		case err != nil && leaf == nil:
			return fail("a certificate that cannot be read: %v", err)
		case err != nil:
		case leaf == nil:
			leaf = cert
		default:
			others.AddCert(cert)
		}
	}
	if leaf == nil {
		return fail("no certificate")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: others, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return fail("the certificate is not to be trusted: %v", err)
	}
	if !certificateIsFor(leaf, identity(id)) {
		return fail("the certificate is not one of %v", identity(id))
	}
	if len(auth.Data) < 1 || len(auth.Data) < 1+int(auth.Data[0]) {
		return fail("no signature")
	}
	algorithm, signature := auth.Data[1:1+int(auth.Data[0])], auth.Data[1+int(auth.Data[0]):]
	for _, scheme := range signatureSchemes {
		if !bytes.Equal(scheme.algorithm, algorithm) {
			continue
		}
		if err := leaf.CheckSignature(scheme.x509, s.signedOctets(sa, s.role == RoleResponder, id), signature); err != nil {
			return fail("bad signature: %v", err)
		}
		return nil
	}
	return fail("an unknown signature algorithm")
}

// certificateIsFor tells whether a certificate bears an identity (RFC 4945,
// Section 3.1). Names are compared whole; no wildcard stands for a gateway.
func certificateIsFor(c *x509.Certificate, id Identity) bool {
	text := string(id.Data)
	same := func(s string) bool { return strings.EqualFold(s, text) }
	switch id.Type {
	case IDFQDN:
		return slices.ContainsFunc(c.DNSNames, same)
	case IDRFC822Addr:
		return slices.ContainsFunc(c.EmailAddresses, same)
	case IDIPv4Addr, IDIPv6Addr:
		a, ok := netip.AddrFromSlice(id.Data)
		for _, ip := range c.IPAddresses {
			if b, ok2 := netip.AddrFromSlice(ip); ok && ok2 && a.Unmap() == b.Unmap() {
				return true
			}
		}
	case IDDERASN1DN:
		return bytes.Equal(c.RawSubject, id.Data)
	}
	return false
}
