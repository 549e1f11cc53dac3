package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
)

// CertificateFiles are the files of an end that proves itself by a certificate,
// in PEM, and that of the authorities it trusts. Empty ones are not there.
type CertificateFiles struct {
	Certificate string // the end's own, and those between it and a root
	Key         string // there if Certificate is
	CA          string // roots
}

// Credentials are what CertificateFiles hold.
type Credentials struct {
	Certificate tls.Certificate     // zero if there is none
	Roots       []*x509.Certificate // nil if no file was named
}

// certificateFiles reads the three keys.
func (t *table) certificateFiles() CertificateFiles {
	f := CertificateFiles{
		Certificate: t.text("certificate_file", "vpn.crt"),
		Key:         t.text("certificate_key_file", "vpn.key"),
		CA:          t.text("ca_file", "ca.crt"),
	}
	if (f.Certificate == "") != (f.Key == "") {
		t.fail("certificate_file", "a certificate and its key are two files", "give certificate_file and certificate_key_file, or none of them")
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

// load reads the files, which lie in dir; nil if none is named.
func (f CertificateFiles) load(dir string) (*Credentials, error) {
	if f == (CertificateFiles{}) {
		return nil, nil
	}
	c := &Credentials{}
	if f.Certificate != "" {
		certFile, keyFile := in(dir, f.Certificate), in(dir, f.Key)
		key, err := readSecret(keyFile)
		if err != nil {
			return nil, err
		}
		cert, err := readFile(certFile)
		if err != nil {
			return nil, cannotRead(certFile, err)
		}
		if c.Certificate, err = tls.X509KeyPair(cert, key); err != nil {
			return nil, &Error{What: "not a certificate with its key: " + oneLine(err.Error()), Where: certFile, Do: "give the certificate and its key in PEM", Err: err}
		}
	}
	if f.CA != "" {
		caFile := in(dir, f.CA)
		ca, err := readFile(caFile)
		if err != nil {
			return nil, cannotRead(caFile, err)
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
	}
	return c, nil
}
