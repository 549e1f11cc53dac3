package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// setServer puts a line before all others in server.toml.
func setServer(t *testing.T, dir, line string) {
	t.Helper()
	file := filepath.Join(dir, "server.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte(line+"\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A site that cannot be shown, and a certificate that cannot be read, are found
// before a visitor finds them.
func TestCheckFindsTheSite(t *testing.T) {
	good := initServer(t)
	setServer(t, good, `site = "html"`)
	if err := os.Mkdir(filepath.Join(good, "html"), 0o755); err != nil {
		t.Fatal(err)
	}
	godwit(t, "check", "--dir", good).wantOK(t)
	for line, want := range map[string]string{
		`site = "html"`:             "site",
		`site = "ftp://127.0.0.1/"`: "http://127.0.0.1:8080",
		`site = "http://"`:          "http://127.0.0.1:8080",
		"certificate_file = \"no.crt\"\ncertificate_key_file = \"no.key\"": "no.key",
	} {
		dir := initServer(t)
		setServer(t, dir, line)
		r := godwit(t, "check", "--dir", dir)
		r.wantError(t, exitError, want)
		if bytes.Count([]byte(r.stderr), []byte("\n")) != 1 {
			t.Errorf("%s: %q", line, r.stderr)
		}
	}
}
