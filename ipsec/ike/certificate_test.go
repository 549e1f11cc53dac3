package ike

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"
)

// issue makes a certificate for names, signed by parent or by itself.
func issue(t testing.TB, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer, until time.Time, names ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Unix(1_600_000_000, 0), NotAfter: until, BasicConstraintsValid: true, IsCA: len(names) == 0,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var late = time.Unix(1_900_000_000, 0)

// certified makes both ends use certificates: the initiator's of one root with
// one between, and the responder's.
func certified(t *testing.T, key func() crypto.Signer, clientNames, serverNames []string, until time.Time) func(*pair) {
	return func(p *pair) {
		rootKey, middleKey := key(), key()
		root := issue(t, rootKey, nil, nil, late)
		middle := issue(t, middleKey, root, rootKey, late)
		clientKey, serverKey := key(), key()
		p.ic.Certificates = [][]byte{issue(t, clientKey, middle, middleKey, until, clientNames...).Raw, middle.Raw}
		p.ic.CertificateKey, p.ic.Roots = clientKey, []*x509.Certificate{root}
		p.ic.PeerKey, p.ic.PrivateKey = nil, nil
		p.rc.Certificates = [][]byte{issue(t, serverKey, root, rootKey, late, serverNames...).Raw}
		p.rc.CertificateKey, p.rc.Roots = serverKey, []*x509.Certificate{root}
		p.rc.Lookup = func(id Identity, key ed25519.PublicKey) (*Peer, error) {
			if key != nil || !id.equal(fqdn("client")) {
				return nil, errors.New("nobody")
			}
			return &Peer{Name: "client", Certificate: true}, nil
		}
	}
}

func TestCertificates(t *testing.T) {
	client, server := []string{"client"}, []string{"server", "other"}
	ed := func() crypto.Signer {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	p256 := func() crypto.Signer { return ecdsaKey(t, elliptic.P256()) }
	for name, key := range map[string]func() crypto.Signer{
		"Ed25519": ed, "P-256": p256,
		"P-384": func() crypto.Signer { return ecdsaKey(t, elliptic.P384()) },
		"P-521": func() crypto.Signer { return ecdsaKey(t, elliptic.P521()) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, certified(t, key, client, server, late))
			p.establish()
			p.wantAgreement()
		})
	}
	for _, tt := range []struct {
		name        string
		change      func(*pair)
		byResponder bool // it refuses
	}{
		{"the client's certificate is another's", certified(t, p256, []string{"mallory"}, server, late), true},
		{"the client's certificate has expired", certified(t, p256, client, server, time.Unix(1_650_000_000, 0)), true},
		{"the client's root is unknown", func(p *pair) {
			certified(t, p256, client, server, late)(p)
			k := p256()
			p.rc.Roots = []*x509.Certificate{issue(t, k, nil, nil, late)}
		}, true},
		{"the client signs with another key", func(p *pair) {
			certified(t, p256, client, server, late)(p)
			p.ic.CertificateKey = p256()
		}, true},
		{"certificates are not for this client", func(p *pair) {
			certified(t, p256, client, server, late)(p)
			p.rc.Lookup = func(Identity, ed25519.PublicKey) (*Peer, error) { return &Peer{Name: "client", PSK: Secret("x")}, nil }
		}, true},
		{"the server's certificate is another's", certified(t, p256, client, []string{"other"}, late), false},
		{"the server signs with another key", func(p *pair) {
			certified(t, p256, client, server, late)(p)
			p.rc.CertificateKey = p256()
		}, false},
		{"the server proves itself by a shared key", func(p *pair) {
			certified(t, p256, client, server, late)(p)
			p.ic.PSK, p.rc.PSK = Secret("x"), Secret("x")
			p.ic.Certificates, p.ic.CertificateKey = nil, nil
			p.rc.Lookup = func(Identity, ed25519.PublicKey) (*Peer, error) { return &Peer{Name: "client", PSK: Secret("x")}, nil }
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, tt.change)
			p.run()
			err := p.closedI()
			var n *NotifyError
			if byResponder := errors.As(err, &n); byResponder != tt.byResponder || !byResponder && !errors.Is(err, ErrAuthentication) {
				t.Errorf("the client ends with %v", err)
			}
			if len(find[Established](p.eventsI)) > 0 {
				t.Error("the client believes that it is connected")
			}
		})
	}
}
