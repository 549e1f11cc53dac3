package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"

	utls "github.com/refraction-networking/utls"
)

// A Fingerprint is whose ClientHello (RFC 8446, Section 4.1.2) the client's
// resembles.
type Fingerprint string

// The fingerprints; the zero value is Go.
const (
	Go      Fingerprint = "go"      // of crypto/tls
	Chrome  Fingerprint = "chrome"  // of a Chrome that offers HTTP/1.1 only
	Firefox Fingerprint = "firefox" // of a Firefox that offers HTTP/1.1 only
)

// userAgents are of the same browsers: one that contradicts the ClientHello
// would be a mark, and so would be the program's own name.
var userAgents = map[Fingerprint]string{
	Chrome:  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36",
	Firefox: userAgent,
}

const userAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

// UserAgent is the User-Agent of the same browser.
func (f Fingerprint) UserAgent() string {
	if u, ok := userAgents[f]; ok {
		return u
	}
	return userAgent
}

// secure does the handshake and gives the SHA-256 of the server's certificate.
func (o Options) secure(ctx context.Context, conn net.Conn, authority string) (net.Conn, [32]byte, error) {
	name := o.ServerName
	if name == "" {
		name = (&url.URL{Host: authority}).Hostname()
	}
	switch o.Fingerprint {
	case "", Go:
		c := tls.Client(conn, &tls.Config{
			MinVersion: tls.VersionTLS13,
			// With a post-quantum key the ClientHello is larger than what a SYN
			// carries, and costs a round trip more where Fast Open passes. What it
			// would keep secret for good is the path of the request: packets in it are
			// ESP, whose keys have one of their own.
			CurvePreferences: []tls.CurveID{tls.X25519},
			NextProtos:       []string{"http/1.1"},
			ServerName:       name,
			RootCAs:          o.RootCAs,
			// The pin takes the place of the usual verification.
			InsecureSkipVerify: o.pinned(),
			VerifyConnection:   func(s tls.ConnectionState) error { return o.verifyPin(s.PeerCertificates) },
		})
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, [32]byte{}, err
		}
		return c, sha256.Sum256(c.ConnectionState().PeerCertificates[0].Raw), nil
	}
	spec, err := helloOf(o.Fingerprint)
	if err != nil {
		return nil, [32]byte{}, err
	}
	c := utls.UClient(conn, &utls.Config{
		ServerName:         name,
		RootCAs:            o.RootCAs,
		InsecureSkipVerify: o.pinned(),
		VerifyConnection: func(s utls.ConnectionState) error {
			// Browsers offer older versions, whose certificates can be seen by
			// anybody on the way.
			if s.Version < utls.VersionTLS13 {
				return errors.New("the server does not speak TLS 1.3")
			}
			return o.verifyPin(s.PeerCertificates)
		},
	}, utls.HelloCustom)
	if err := c.ApplyPreset(spec); err != nil {
		return nil, [32]byte{}, fmt.Errorf("ClientHello of %s: %w", o.Fingerprint, err)
	}
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, [32]byte{}, err
	}
	return c, sha256.Sum256(c.ConnectionState().PeerCertificates[0].Raw), nil
}

// helloOf gives a browser's ClientHello, except that it offers HTTP/1.1 alone:
// HTTP/2 has no Upgrade.
func helloOf(f Fingerprint) (*utls.ClientHelloSpec, error) {
	id := utls.HelloChrome_Auto
	switch f {
	case Chrome:
	case Firefox:
		id = utls.HelloFirefox_Auto
	default:
		return nil, fmt.Errorf("no ClientHello is known for %q", f)
	}
	spec, err := utls.UTLSIdToSpec(id)
	if err != nil {
		return nil, fmt.Errorf("ClientHello of %s: %w", f, err)
	}
	kept := spec.Extensions[:0]
	for _, e := range spec.Extensions {
		switch e := e.(type) {
		case *utls.ALPNExtension:
			e.AlpnProtocols = []string{"http/1.1"}
		case *utls.ApplicationSettingsExtension, *utls.ApplicationSettingsExtensionNew:
			continue // settings of HTTP/2, which is not offered
		}
		kept = append(kept, e)
	}
	spec.Extensions = kept
	return &spec, nil
}

func (o Options) pinned() bool { return o.CertHash != [32]byte{} }

// verifyPin compares the certificate with the pinned one, if there is one.
func (o Options) verifyPin(shown []*x509.Certificate) error {
	if len(shown) == 0 {
		return errors.New("the server showed no certificate")
	}
	if !o.pinned() {
		return nil
	}
	seen := sha256.Sum256(shown[0].Raw)
	if subtle.ConstantTimeCompare(seen[:], o.CertHash[:]) != 1 {
		return &CertError{Seen: seen}
	}
	return nil
}

// certError makes the Web PKI's verdict a *CertError.
func certError(err error) error {
	var shown []*x509.Certificate
	var v *tls.CertificateVerificationError
	var u *utls.CertificateVerificationError
	switch {
	case errors.As(err, &v):
		shown = v.UnverifiedCertificates
	case errors.As(err, &u):
		shown = u.UnverifiedCertificates
	}
	if len(shown) == 0 {
		return err
	}
	return &CertError{Seen: sha256.Sum256(shown[0].Raw), Err: err}
}
