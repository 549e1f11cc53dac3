package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
)

// IKE never waits for the certificate: it is there when the authority gave it, a
// renewed one takes its place, and an authority that fails is not pestered.
func TestGuestCertificateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		asked, fails := 0, true
		c := &tls.Certificate{}
		set := func(failing bool, next *tls.Certificate) {
			mu.Lock()
			defer mu.Unlock()
			fails, c = failing, next
		}
		g := &guestCertificate{log: slog.New(slog.DiscardHandler), source: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			if fails {
				return nil, errors.New("not yet")
			}
			return c, nil
		}}
		go g.keep(ctx)
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		mu.Lock()
		times := asked
		mu.Unlock()
		if g.now.Load() != nil || times < 12 || times > 20 {
			t.Fatalf("asked %d times in twelve hours", times)
		}
		first := &tls.Certificate{}
		set(false, first)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if g.now.Load() != first {
			t.Fatal("the certificate is not there")
		}
		next := &tls.Certificate{}
		set(false, next)
		time.Sleep(2 * certificateLook)
		synctest.Wait()
		if g.now.Load() != next {
			t.Fatal("the renewed one is not")
		}
		set(true, next)
		time.Sleep(time.Hour)
		synctest.Wait()
		if g.now.Load() != next {
			t.Fatal("a failure takes it away")
		}
	})
}

// Users can log in with the certificate of the table [ikev2], or with the web's if it
// is for the server's identity.
func TestWhereTheCertificateComesFrom(t *testing.T) {
	dir := initServer(t)
	godwit(t, "server", "certificate", "--name", "vpn.example.org", "--dir", dir).wantOK(t)
	toml := filepath.Join(dir, "server.toml")
	appendTo(t, toml, "\n[ikev2]\nidentity = \"vpn.example.org\"\n")
	logger := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		what  string
		over  []config.Override
		takes bool
	}{
		{what: "none"},
		{"its own", []config.Override{{Key: "ikev2.certificate_file", Value: "vpn.crt"}, {Key: "ikev2.certificate_key_file", Value: "vpn.key"}}, true},
		{"the web's", []config.Override{{Key: "certificate_file", Value: "vpn.crt"}, {Key: "certificate_key_file", Value: "vpn.key"}}, true},
		{"the web's for another name", []config.Override{
			{Key: "certificate_file", Value: "vpn.crt"}, {Key: "certificate_key_file", Value: "vpn.key"}, {Key: "ikev2.identity", Value: "other.example.org"},
		}, false},
	} {
		d, err := config.LoadServer(dir, tt.over...)
		if err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		var sc server.Config
		if _, err := setWeb(&sc, d, logger); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		if sc.Guests, err = guestsConfig(d, logger); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := keepCertificate(ctx, &sc, d, logger); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		if takesLogins(d) != tt.takes || (sc.Guests.GetCertificate != nil) != tt.takes {
			t.Errorf("%s: %v", tt.what, takesLogins(d))
		}
		if get := sc.Guests.GetCertificate; get != nil {
			for get() == nil {
				time.Sleep(time.Millisecond)
			}
			if leaf, err := x509.ParseCertificate(get().Certificate[0]); err != nil || leaf.VerifyHostname("vpn.example.org") != nil {
				t.Errorf("%s: %v", tt.what, err)
			}
		}
		cancel()
	}
}
