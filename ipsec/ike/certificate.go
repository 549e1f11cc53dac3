package ike

import (
	"bytes"
	"crypto"
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

// checkCertificates looks at this end's own certificate.
func (c *Config) checkCertificates() error {
	if len(c.Certificates) == 0 {
		return nil
	}
	if c.CertificateKey == nil || len(c.Certificates) > maxCertificates {
		return fmt.Errorf("ike: %d certificates, or no key for them", len(c.Certificates))
	}
	_, err := schemesFor(c.CertificateKey)
	return err
}

// certificate is what this end shows now; nil if there is none.
func (c *Config) certificate() (chain [][]byte, key crypto.Signer) {
	if c.GetCertificate != nil {
		if chain, key := c.GetCertificate(); len(chain) > 0 && len(chain) <= maxCertificates && key != nil {
			return chain, key
		}
	}
	return c.Certificates, c.CertificateKey
}

// certificateProof makes CERT and AUTH payloads, the certificate that the key
// belongs to first: "the first certificate MUST contain the public key used to
// verify the AUTH field". RFC 7296, Section 3.6
func (s *Session) certificateProof(octets []byte) ([]message.Payload, error) {
	chain, key := s.c.certificate()
	if len(chain) == 0 {
		return nil, errors.New("no certificate yet")
	}
	auth, err := s.sign(key, octets)
	if err != nil {
		return nil, err
	}
	var ps []message.Payload
	for _, der := range chain {
		ps = append(ps, &message.Cert{Encoding: message.CertX509, Data: der})
	}
	return append(ps, auth), nil
}

// authorities names the certification authorities that we trust: SHA-1 hashes
// of their keys (RFC 7296, Section 3.7).
func (c *Config) authorities() []message.Payload {
	if len(c.Roots) == 0 && !c.SystemRoots {
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
	if auth.Method == message.AuthSharedKey {
		return fail("a shared key instead of a certificate")
	}
	var leaf *x509.Certificate
	var roots *x509.CertPool // nil: the system's
	others := x509.NewCertPool()
	if !s.c.SystemRoots {
		roots = x509.NewCertPool()
	}
	for _, r := range s.c.Roots {
		if roots != nil {
			roots.AddCert(r)
		}
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
	if err := verifySignature(leaf, auth, s.signedOctets(sa, s.role == RoleResponder, id)); err != nil {
		return fail("%w", err)
	}
	return nil
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
