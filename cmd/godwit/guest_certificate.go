package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
	website "github.com/godwit-net/godwit/server/site"
)

const (
	// certificateLook is how often the certificate for IKEv2 clients is asked for anew.
	certificateLook = time.Minute
	// certificatePatience bounds the wait after an error, as authorities do not like
	// to be asked often.
	certificatePatience = time.Hour
)

// A guestCertificate is what the server shows to IKEv2 clients. IKE must not wait
// for it, so it is fetched beside.
type guestCertificate struct {
	source func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	hello  tls.ClientHelloInfo
	now    atomic.Pointer[tls.Certificate]
	log    *slog.Logger
}

// webCertificate tells whether the certificate for visitors of the web is good for
// IKEv2 clients too.
func webCertificate(d *config.ServerDir) bool {
	k := d.Config.IKEv2
	if k == nil {
		return false
	}
	if slices.Contains(d.Config.Web.ACMEHosts, k.Identity) {
		return true
	}
	if _, _, ok := d.CertificateFiles(); !ok || len(d.Certificate.Certificate) == 0 {
		return false
	}
	leaf, err := x509.ParseCertificate(d.Certificate.Certificate[0])
	return err == nil && !strings.Contains(k.Identity, "@") && leaf.VerifyHostname(k.Identity) == nil
}

// takesLogins tells whether users can log in by a password.
func takesLogins(d *config.ServerDir) bool {
	_, _, own := d.IKECertificateFiles()
	return own || webCertificate(d)
}

// keepCertificate gives guests the certificate of [ikev2], or else that of the web,
// and renews it until ctx ends.
func keepCertificate(ctx context.Context, sc *server.Config, d *config.ServerDir, logger *slog.Logger) error {
	g := &guestCertificate{log: logger}
	cert, key, own := d.IKECertificateFiles()
	switch {
	case sc.Guests == nil:
		return nil
	case own:
		f, err := website.NewFiles(cert, key, logger)
		if err != nil {
			return &config.Error{What: lastCause(err), Where: d.Where("ikev2.certificate_file"), Do: "give the certificate and its key in PEM", Err: err}
		}
		g.source = f.GetCertificate
	case webCertificate(d) && sc.GetCertificate != nil:
		g.source = sc.GetCertificate
	default:
		return nil
	}
	// Every client knows RSA; Windows wants it.
	g.hello = tls.ClientHelloInfo{
		ServerName: d.Config.IKEv2.Identity, SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		SignatureSchemes: []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PSSWithSHA256},
		CipherSuites:     []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		SupportedCurves:  []tls.CurveID{tls.X25519, tls.CurveP256},
	}
	sc.Guests.GetCertificate = g.now.Load
	go g.keep(ctx)
	return nil
}

// keep fetches until ctx ends. An authority may take its time; nobody waits.
func (g *guestCertificate) keep(ctx context.Context) {
	wait := certificateLook
	for {
		c, err := g.source(&g.hello)
		switch {
		case err != nil:
			wait = min(2*wait, certificatePatience)
			g.log.LogAttrs(ctx, slog.LevelWarn, "no certificate for IKEv2 clients", slog.Any("err", err), slog.Duration("retry", wait))
		case c != nil:
			wait = certificateLook
			if g.now.Swap(c) == nil {
				g.log.LogAttrs(ctx, slog.LevelInfo, "IKEv2 clients may log in by a password", slog.String("certificate", g.hello.ServerName))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
