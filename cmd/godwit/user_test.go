package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// From nothing to a profile, with what each command prints.
func TestUserWithPassword(t *testing.T) {
	server := initServer(t)
	toml := filepath.Join(server, "server.toml")
	r := godwit(t, "server", "user", "add", "early", "--password", "--dir", server)
	if r.code != exitOK || !strings.Contains(r.stderr, "run godwit server certificate") {
		t.Errorf("%+v", r)
	}
	godwit(t, "server", "user", "profile", "early", "--dir", server).wantError(t, exitError, "only godwit clients", "[ikev2]")
	r = godwit(t, "server", "certificate", "--name", "vpn.example.org", "--dir", server)
	r.wantOK(t)
	_, lines, ok := strings.Cut(r.stdout, "\n\n")
	if !ok || !strings.Contains(lines, "[ikev2]") {
		t.Fatalf("it prints %q", r.stdout)
	}
	appendTo(t, toml, "\n"+lines) // as it says
	r = godwit(t, "server", "user", "add", "carol", "--password", "--dir", server)
	r.wantOK(t)
	_, password, ok := strings.Cut(r.stdout, "password: ")
	if password = strings.TrimSpace(password); !ok || len(password) < 20 || !strings.Contains(r.stdout, "vpn.example.org\nuser name: carol\n") {
		t.Fatalf("it prints %q", r.stdout)
	}
	kept, err := os.ReadFile(filepath.Join(server, "clients", "carol.toml"))
	if err != nil || strings.Contains(string(kept), password) || !strings.Contains(string(kept), "nt_hash") {
		t.Errorf("kept: %q, %v", kept, err)
	}
	r = godwitReading(t, "a password of mine\n", "server", "user", "add", "dave", "--password", "--secret-stdin", "--dir", server)
	r.wantOK(t)
	if strings.Contains(r.stdout, "mine") {
		t.Errorf("it prints %q", r.stdout)
	}
	godwit(t, "server", "user", "add", "x", "--password", "--certificate", "--dir", server).wantError(t, exitUsage, "give one of them")
	godwit(t, "check", "--dir", server).wantOK(t)
	t.Setenv("GODWIT_SERVER_IKEV2_IDENTITY", "other.example.org")
	godwit(t, "check", "--dir", server).wantError(t, exitError, "the certificate is not for other.example.org")
	t.Setenv("GODWIT_SERVER_IKEV2_IDENTITY", "")

	r = godwit(t, "server", "user", "renew", "carol", "--dir", server)
	r.wantOK(t)
	again, err := os.ReadFile(filepath.Join(server, "clients", "carol.toml"))
	if !regexp.MustCompile(`^password: \w{20,}\n$`).MatchString(r.stdout) || err != nil || string(again) == string(kept) {
		t.Errorf("it prints %q, %v", r.stdout, err)
	}
	r = godwit(t, "server", "clients", "--dir", server)
	if !regexp.MustCompile(`(?m)^carol .* user with a password$`).MatchString(r.stdout) {
		t.Errorf("the clients: %s", r.stdout)
	}

	for device, parts := range map[string][]string{
		"apple":      {"com.apple.security.root", "<string>carol</string>", "ExtendedAuthEnabled</key><integer>1", "AES-256-GCM"},
		"windows":    {"Import-Certificate", "BEGIN CERTIFICATE", "-ServerAddress '127.0.0.1'", "GCMAES256"},
		"strongswan": {"eap-mschapv2", "cacerts", "BEGIN CERTIFICATE"},
	} {
		r := godwit(t, "server", "user", "profile", "carol", "--for", device, "--dir", server)
		r.wantOK(t)
		for _, p := range parts {
			if !strings.Contains(r.stdout, p) {
				t.Errorf("%s: no %q in %s", device, p, r.stdout)
			}
		}
		if strings.Contains(r.stdout, password) || strings.Contains(r.stdout, "no value") {
			t.Errorf("%s: %s", device, r.stdout)
		}
		if device == "apple" {
			wellFormed(t, r.stdout)
		}
	}
	godwit(t, "server", "user", "profile", "carol", "--for", "amiga", "--dir", server).wantError(t, exitUsage, "write apple, windows or strongswan")
	godwit(t, "server", "user", "profile", "nobody", "--dir", server).wantError(t, exitError, "no client of this name")
}

// A shared secret is in the profile, whatever characters it has.
func TestUserWithSecretProfile(t *testing.T) {
	server := initServer(t)
	appendTo(t, filepath.Join(server, "server.toml"), "\n[ikev2]\nidentity = \"vpn.example.org\"\n")
	const secret = `a <secret> & "more" \ </string>`
	godwitReading(t, secret, "server", "user", "add", "carol", "--secret-stdin", "--dir", server).wantOK(t)
	r := godwit(t, "server", "user", "profile", "carol", "--dir", server)
	r.wantOK(t)
	if !strings.Contains(wellFormed(t, r.stdout), secret) || strings.Contains(r.stdout, "security.root") {
		t.Errorf("the profile: %s", r.stdout)
	}
	r = godwit(t, "server", "user", "profile", "carol", "--for", "strongswan", "--dir", server)
	if !strings.Contains(r.stdout, `secret = "a <secret> & \"more\" \\ </string>"`) {
		t.Errorf("the settings: %s", r.stdout)
	}
	godwit(t, "server", "user", "profile", "carol", "--for", "windows", "--dir", server).wantError(t, exitError, "by a password alone", "--password")
	invite(t, server, "laptop")
	godwit(t, "server", "user", "renew", "laptop", "--dir", server).wantError(t, exitError, "no user with a password")
	godwit(t, "server", "user", "renew", "nobody", "--dir", server).wantError(t, exitError, "no client of this name")
	r = godwit(t, "server", "user", "renew", "carol", "--dir", server)
	if kept, err := os.ReadFile(filepath.Join(server, "clients", "carol.toml")); !strings.HasPrefix(r.stdout, "shared secret: ") || err != nil || strings.Contains(string(kept), "more") {
		t.Errorf("it prints %q; %s, %v", r.stdout, kept, err)
	}
	godwit(t, "server", "user", "profile", "laptop", "--dir", server).wantError(t, exitError, "no user with a password")
}

// wellFormed reads XML and gives its text.
func wellFormed(t *testing.T, s string) (text string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(s)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return text
		}
		if err != nil {
			t.Fatalf("%v in %s", err, s)
		}
		if c, ok := token.(xml.CharData); ok {
			text += string(c)
		}
	}
}
