package site

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// writePair makes a certificate with a serial number, and gives it and its key as PEM.
func writePair(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// TestFiles: a renewed certificate is shown soon, and while its files do not fit
// together the old one is.
func TestFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
		// The files' times are the test's to set: the bubble's clock is not the system's.
		write := func(file string, b []byte, at time.Time) {
			t.Helper()
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, at, at); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := NewFiles(certFile, keyFile, nil); err == nil {
			t.Fatal("files that are not there")
		}
		cert1, key1 := writePair(t, 1)
		cert2, key2 := writePair(t, 2)
		write(certFile, cert1, time.Now())
		write(keyFile, key1, time.Now())
		f, err := NewFiles(certFile, keyFile, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := func(serial int64, when string) {
			t.Helper()
			c, err := f.GetCertificate(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Leaf.SerialNumber.Int64(); got != serial {
				t.Errorf("%s: certificate %d", when, got)
			}
		}
		want(1, "at first")
		time.Sleep(lookEvery)
		write(certFile, cert2, time.Now())
		want(1, "with the new certificate and the old key")
		write(keyFile, key2, time.Now())
		want(1, "looked at a moment ago")
		time.Sleep(lookEvery)
		want(2, "renewed")
		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		want(2, "removed")
	})
}
