package site

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// lookEvery is how often the files of a certificate are looked at, while visitors
// come.
const lookEvery = 5 * time.Second

// Files is a certificate in files that somebody else renews.
type Files struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	now    *tls.Certificate
	stamp  [2]stamp
	lookAt time.Time
}

// A stamp tells whether a file was written since.
type stamp struct {
	at   time.Time
	size int64
}

// NewFiles reads a certificate, with those between it and a root, and its key, both
// in PEM. logger hears of files that cannot be read later; nil discards.
func NewFiles(cert, key string, logger *slog.Logger) (*Files, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f := &Files{cert: cert, key: key, log: logger}
	if err := f.read(); err != nil {
		return nil, err
	}
	f.lookAt = time.Now().Add(lookEvery)
	return f, nil
}

func (f *Files) read() error {
	stamps, err := f.stamps()
	if err != nil {
		return err
	}
	c, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", f.cert, err)
	}
	f.now, f.stamp = &c, stamps
	return nil
}

func (f *Files) stamps() (s [2]stamp, err error) {
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = stamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

// GetCertificate is for tls.Config. It reads the files again when they have changed;
// while they do not fit together, as in the middle of a renewal, the old certificate
// stays.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); !now.Before(f.lookAt) {
		f.lookAt = now.Add(lookEvery)
		if s, err := f.stamps(); err != nil || s != f.stamp {
			if err = f.read(); err != nil {
				f.log.Warn("certificate not read again", slog.Any("err", err))
			} else {
				f.log.Info("certificate read again", slog.String("file", f.cert))
			}
		}
	}
	return f.now, nil
}

// An ACME is a certificate that an authority gives by ACME (RFC 8555), which
// reaches the server on its one port (TLS-ALPN-01, RFC 8737).
type ACME struct {
	hosts   []string
	manager *autocert.Manager
	log     *slog.Logger

	mu     sync.Mutex
	failed time.Time // when a failure was logged last
}

// complainEvery bounds how often the same trouble with an authority is logged: each
// visitor meets it.
const complainEvery = time.Minute

// ACMEProtocol is what a TLS configuration has to offer for an ACME.
const ACMEProtocol = acme.ALPNProto

// NewACME has certificates for hosts, at least one name, asked of the authority
// whose directory is at an https URL; its terms are agreed to. What it gives is kept
// in the folder cache, which is made with permissions for the owner alone. logger
// hears of what goes wrong; nil discards.
func NewACME(hosts []string, directory, cache string, logger *slog.Logger) (*ACME, error) {
	if len(hosts) == 0 {
		return nil, fmt.Errorf("no name to ask a certificate for")
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, fmt.Errorf("folder of certificates: %w", err)
	}
	// It may have been there.
	if err := os.Chmod(cache, 0o700); err != nil {
		return nil, fmt.Errorf("folder of certificates: %w", err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &ACME{hosts: hosts, log: logger, manager: &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(cache),
		HostPolicy: autocert.HostWhitelist(hosts...),
		Client:     &acme.Client{DirectoryURL: directory},
	}}, nil
}

// GetCertificate is for tls.Config. The first visitor waits for the authority.
// Whoever names another host, or none, is shown the certificate of the first one,
// as most web servers do.
func (a *ACME) GetCertificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	asked := *h
	if !slices.Contains(a.hosts, h.ServerName) {
		asked.ServerName = a.hosts[0]
	}
	cert, err := a.manager.GetCertificate(&asked)
	if err != nil {
		a.complain(asked.ServerName, err)
	}
	return cert, err
}

func (a *ACME) complain(host string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); a.failed.IsZero() || now.Sub(a.failed) >= complainEvery {
		a.failed = now
		a.log.Warn("no certificate by ACME", slog.String("host", host), slog.Any("err", err))
	}
}
