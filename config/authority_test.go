package config

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The certificate is good for the server's names alone, a second one is of the
// same authority, and the authority is found again.
func TestIssueCertificate(t *testing.T) {
	d := newServer(t)
	leaf := func() *x509.Certificate {
		t.Helper()
		if err := d.IssueCertificate([]string{"vpn.example.org", "192.0.2.1"}, noon); err != nil {
			t.Fatal(err)
		}
		var err error
		if d.Credentials, err = (CertificateFiles{Certificate: ikeCert, Key: ikeKey}).load(d.path); err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(d.Credentials.Certificate.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := leaf()
	der := d.Authority()
	second := leaf()
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, c := range []*x509.Certificate{first, second} {
		for _, name := range []string{"vpn.example.org", "192.0.2.1"} {
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: noon, DNSName: name}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: noon.AddDate(3, 0, 0)}); err == nil {
			t.Error("it never ends")
		}
	}
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 {
		t.Error("two certificates with one number")
	}
	// The authority vouches for nobody else.
	for _, name := range []string{"bank.example.com", "192.0.2.2", "2001:db8::1"} {
		wantError(t, d.IssueCertificate([]string{name}, noon), "cannot vouch for these names", "authority.crt")
	}
	if c := leaf(); c.VerifyHostname("vpn.example.org") != nil {
		t.Error("the files are not as they were")
	}
	for _, name := range []string{ikeKey, authorityKey} {
		if info, err := os.Stat(filepath.Join(d.path, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	d.Credentials = nil
	if d.Authority() != nil {
		t.Error("an authority without a certificate")
	}
}

// An authority for an address alone vouches for no names.
func TestAuthorityForAddress(t *testing.T) {
	d := newServer(t)
	ca, _, err := d.makeAuthority([]string{"192.0.2.1"}, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	if len(ca.PermittedIPRanges) != 1 || !ca.PermittedIPRanges[0].IP.Equal(net.IPv4(192, 0, 2, 1)) {
		t.Errorf("it vouches for %v", ca.PermittedIPRanges)
	}
	wantError(t, d.IssueCertificate([]string{"vpn.example.org"}, time.Unix(1_700_000_000, 0)), "cannot vouch")
}
