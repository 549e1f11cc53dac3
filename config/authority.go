package config

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// The files of an authority of the server's own, and of the certificate that it
// issues.
const (
	authorityCert = "authority.crt"
	authorityKey  = "authority.key"
	ikeCert       = "vpn.crt"
	ikeKey        = "vpn.key"
)

const (
	// authorityYears is how long devices that trust the authority need no other.
	authorityYears = 20
	// certificateDays is the longest that Apple's systems take.
	certificateDays = 825
	// Windows wants RSA unless it is told otherwise on each device.
	authorityBits, certificateBits = 3072, 2048
)

// oidIKEIntermediate is an extended key usage that old systems look for.
var oidIKEIntermediate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}

// IssueCertificate makes a certificate for names, domain names or IP addresses, by
// which the server proves itself to IKEv2 clients, in the files vpn.crt and
// vpn.key of its folder. It replaces what is there. The first time it makes an
// authority too, authority.crt and authority.key, which devices have to be told to
// trust; it vouches for no names but these and those below them.
func (d *ServerDir) IssueCertificate(names []string, now time.Time) error {
	ca, caKey, err := d.loadAuthority()
	if errors.Is(err, fs.ErrNotExist) {
		ca, caKey, err = d.makeAuthority(names, now)
	}
	if err != nil {
		return err
	}
	t := template(names[0], now)
	t.NotAfter = t.NotBefore.AddDate(0, 0, certificateDays)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidIKEIntermediate}
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err == nil {
			t.IPAddresses = append(t.IPAddresses, a.AsSlice())
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, certificateBits)
	if err != nil {
		return &Error{What: "cannot make a key: " + oneLine(err.Error()), Err: err}
	}
	return d.sign(t, ca, key, caKey, ikeCert, ikeKey)
}

// template is what all certificates have.
func template(name string, now time.Time) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		serial = big.NewInt(now.UnixNano()) // crypto/rand never fails
	}
	t := &x509.Certificate{
		SerialNumber: serial, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour).UTC().Truncate(time.Second), // clocks of devices differ
	}
	if len(name) <= 64 {
		t.Subject = pkix.Name{CommonName: name}
	}
	return t
}

func (d *ServerDir) makeAuthority(names []string, now time.Time) (*x509.Certificate, *rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, authorityBits)
	if err != nil {
		return nil, nil, &Error{What: "cannot make a key: " + oneLine(err.Error()), Err: err}
	}
	t := template("godwit "+names[0], now)
	if t.Subject.CommonName == "" {
		t.Subject.CommonName = "godwit"
	}
	t.NotAfter = t.NotBefore.AddDate(authorityYears, 0, 0)
	t.IsCA, t.MaxPathLenZero, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	t.ExtKeyUsage, t.UnknownExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []asn1.ObjectIdentifier{oidIKEIntermediate}
	// Who steals its key cannot pretend to be anybody else. It is not critical, as
	// some systems refuse what they do not know.
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err == nil {
			t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())})
		} else {
			t.PermittedDNSDomains = append(t.PermittedDNSDomains, n)
		}
	}
	if t.PermittedDNSDomains == nil {
		t.PermittedDNSDomains = []string{"invalid"} // RFC 2606, Section 2
	}
	if t.PermittedIPRanges == nil {
		for _, all := range []string{"0.0.0.0/0", "::/0"} {
			if _, n, err := net.ParseCIDR(all); err == nil {
				t.ExcludedIPRanges = append(t.ExcludedIPRanges, n)
			}
		}
	}
	if err := d.sign(t, t, key, key, authorityCert, authorityKey); err != nil {
		return nil, nil, err
	}
	return d.loadAuthority()
}

// sign writes a certificate and its key, the certificate last.
func (d *ServerDir) sign(t, parent *x509.Certificate, key, parentKey *rsa.PrivateKey, certFile, keyFile string) error {
	fail := func(err error) error {
		return &Error{What: "cannot make a certificate: " + oneLine(err.Error()), Where: filepath.Join(d.path, certFile), Do: "give domain names or addresses", Err: err}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), parentKey)
	if err != nil {
		return fail(err)
	}
	if c, err := x509.ParseCertificate(der); err != nil {
		return fail(err)
	} else if roots := x509.NewCertPool(); t != parent {
		roots.AddCert(parent)
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: c.NotBefore.Add(time.Hour)}); err != nil {
			return &Error{
				What: "the authority cannot vouch for these names: " + oneLine(err.Error()), Where: filepath.Join(d.path, authorityCert),
				Do: "remove authority.crt and authority.key to make another, which devices have to be told anew", Err: err,
			}
		}
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	if err := writeFile(filepath.Join(d.path, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return err
	}
	return writeFile(filepath.Join(d.path, certFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// loadAuthority reads authority.crt and authority.key. An error matches
// fs.ErrNotExist if there is no such certificate.
func (d *ServerDir) loadAuthority() (*x509.Certificate, *rsa.PrivateKey, error) {
	path := filepath.Join(d.path, authorityCert)
	if _, err := os.Stat(path); err != nil {
		return nil, nil, err
	}
	c, err := CertificateFiles{Certificate: authorityCert, Key: authorityKey}.load(d.path)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(c.Certificate.Certificate[0])
	key, ok := c.Certificate.PrivateKey.(*rsa.PrivateKey)
	if err != nil || !ok || !leaf.IsCA {
		return nil, nil, &Error{What: "not an authority with an RSA key", Where: path, Do: "restore it from a backup, or remove it to make another", Err: err}
	}
	return leaf, key, nil
}

// IKECertificateFiles are those of Config.IKEv2 that the server proves itself by; ok
// is false if there are none.
func (d *ServerDir) IKECertificateFiles() (cert, key string, ok bool) {
	k := d.Config.IKEv2
	if k == nil || k.Certificates.Certificate == "" {
		return "", "", false
	}
	return in(d.path, k.Certificates.Certificate), in(d.path, k.Certificates.Key), true
}

// Authority is the certificate, in DER, that a device has to trust to know the
// server by Credentials: the authority of the server's own, or the root that
// stands at the end of certificate_file. nil means that devices may know it
// already.
func (d *ServerDir) Authority() []byte {
	if d.Credentials == nil || len(d.Credentials.Certificate.Certificate) == 0 {
		return nil
	}
	chain := d.Credentials.Certificate.Certificate
	last, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil {
		return nil
	}
	if bytes.Equal(last.RawIssuer, last.RawSubject) {
		return last.Raw
	}
	data, err := readFile(filepath.Join(d.path, authorityCert))
	if err != nil {
		return nil
	}
	if block, _ := pem.Decode(data); block != nil {
		if ca, err := x509.ParseCertificate(block.Bytes); err == nil && last.CheckSignatureFrom(ca) == nil {
			return ca.Raw
		}
	}
	return nil
}
