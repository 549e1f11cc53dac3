package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
)

// CertificateFiles are the files of an end that proves itself by a certificate,
// in PEM, and that of the authorities it trusts.
type CertificateFiles struct {
	Certificate string // the end's own, and those between it and a root
	Key         string
	CA          string // roots
}

// complete tells whether all three are named, or none.
func (f CertificateFiles) complete() bool {
	return (f.Certificate == "") == (f.Key == "") && (f.Key == "") == (f.CA == "")
}

// Credentials are what CertificateFiles hold.
type Credentials struct {
	Certificate tls.Certificate
	Roots       []*x509.Certificate
}

// certificateFiles reads the three keys.
func (t *table) certificateFiles() CertificateFiles {
	f := CertificateFiles{
		Certificate: t.text("certificate_file", "vpn.crt"),
		Key:         t.text("certificate_key_file", "vpn.key"),
		CA:          t.text("ca_file", "ca.crt"),
	}
	if !f.complete() {
		t.fail("certificate_file", "certificates take three files", "give certificate_file, certificate_key_file and ca_file, or none of them")
	}
	return f
}

// in gives a file's path in a folder, unless it has one of its own.
func in(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// load reads the files, which lie in dir.
func (f CertificateFiles) load(dir string) (*Credentials, error) {
	if f.Certificate == "" {
		return nil, nil
	}
	certFile, keyFile, caFile := in(dir, f.Certificate), in(dir, f.Key), in(dir, f.CA)
	key, err := readSecret(keyFile)
	if err != nil {
		return nil, err
	}
	cert, err := readFile(certFile)
	if err != nil {
		return nil, cannotRead(certFile, err)
	}
	ca, err := readFile(caFile)
	if err != nil {
		return nil, cannotRead(caFile, err)
	}
	c := &Credentials{}
	if c.Certificate, err = tls.X509KeyPair(cert, key); err != nil {
		return nil, &Error{What: "not a certificate with its key: " + oneLine(err.Error()), Where: certFile, Do: "give the certificate and its key in PEM", Err: err}
	}
	for block, rest := pem.Decode(ca); block != nil; block, rest = pem.Decode(rest) {
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &Error{What: "not a certificate: " + oneLine(err.Error()), Where: caFile, Do: "give the authorities' certificates in PEM", Err: err}
		}
		c.Roots = append(c.Roots, root)
	}
	if len(c.Roots) == 0 {
		return nil, &Error{What: "no certificate in PEM", Where: caFile, Do: "give the authorities' certificates in PEM"}
	}
	return c, nil
}
