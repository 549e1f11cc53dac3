package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// joining runs client join into a new folder, and gives that.
func joining(t *testing.T, link string) (result, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "client")
	return godwit(t, "client", "join", link, "--dir", dir), dir
}

// wantNothing checks that joining left no settings.
func wantNothing(t *testing.T, dir string) {
	t.Helper()
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

// Joining says what passes; a link for one use is good for one.
func TestJoinOnceAndTwice(t *testing.T) {
	_, serverDir := startServer(t)
	r := godwit(t, "server", "invite", "laptop", "--dir", serverDir, "--once", "--qr")
	r.wantOK(t)
	link, code, _ := strings.Cut(r.stdout, "\n")
	if !strings.HasPrefix(link, "godwit://v2/") || strings.Count(code, "\n") < 20 || !strings.Contains(code, "▀") {
		t.Fatalf("got %q", r.stdout)
	}
	r = godwit(t, "server", "clients", "--dir", serverDir)
	r.wantOK(t)
	if !strings.Contains(r.stdout, "invited once until") {
		t.Errorf("got %q", r.stdout)
	}
	r, dir := joining(t, link)
	r.wantOK(t)
	for _, want := range []string{`^joined 127\.0\.0\.1:\d+ as laptop, set up in `, `(?m)^udp +yes +\d+\.\d ms +none`, `(?m)^tcp +yes`, `(?m)^websocket +yes`, `godwit will use udp here`, `next: godwit client run\n$`} {
		if !regexp.MustCompile(want).MatchString(r.stdout) {
			t.Errorf("%q does not say %s", r.stdout, want)
		}
	}
	target := startTarget(t)
	_, proxy := startClient(t, dir)
	if got := get(t, "socks5", proxy, target); got != "hello" {
		t.Errorf("got %q", got)
	}
	r, dir = joining(t, link)
	r.wantError(t, exitError, "refuses this link: it was used already", "ask for a new one")
	wantNothing(t, dir)
}

func TestJoinRefused(t *testing.T) {
	_, serverDir := startServer(t)
	for _, once := range []string{"--once", "--once=false"} {
		r := godwit(t, "server", "invite", "late", "--dir", serverDir, once)
		r.wantOK(t)
		path := filepath.Join(serverDir, "clients", "late.toml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		replace(t, path, regexp.MustCompile(`expires = .*`).FindString(string(text)), "expires = 2001-01-01T00:00:00Z")
		r, dir := joining(t, r.stdout)
		r.wantError(t, exitError, "by the server's clock the link expired before it was used")
		wantNothing(t, dir)

		r = godwit(t, "server", "invite", "removed", "--dir", serverDir, once)
		r.wantOK(t)
		godwit(t, "server", "remove", "removed", "--dir", serverDir).wantOK(t)
		r, dir = joining(t, r.stdout)
		r.wantError(t, exitError, "the invitation has expired or was withdrawn")
		wantNothing(t, dir)
	}
	// A folder of another server that claims to be at this address.
	other := initServer(t)
	s, err := os.ReadFile(filepath.Join(serverDir, "server.toml"))
	if err != nil {
		t.Fatal(err)
	}
	endpoint := regexp.MustCompile(`endpoint = "(.*)"`).FindStringSubmatch(string(s))[1]
	replace(t, filepath.Join(other, "server.toml"), "127.0.0.1:4443", endpoint)
	// It knows the client by its name and key, as after a restored backup.
	r := godwit(t, "server", "invite", "wary", "--dir", other)
	r.wantOK(t)
	record, err := os.ReadFile(filepath.Join(other, "clients", "wary.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(serverDir, "clients", "wary.toml"), []byte(strings.ReplaceAll(string(record), ".0.2", ".0.9")), 0o600); err != nil {
		t.Fatal(err)
	}
	r, dir := joining(t, r.stdout)
	r.wantError(t, exitError, "shows another key than the one in the invitation")
	wantNothing(t, dir)
}
