package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/proxy"

	"github.com/godwit-net/godwit/client"
)

// startServer starts a server on a free port of loopback that lets clients
// reach loopback, and gives its folder.
func startServer(t *testing.T) (*running, string) {
	t.Helper()
	dir := initServer(t, "--listen", "127.0.0.1:0", "--allow", "127.0.0.0/8")
	s := start(t, "server", "run", "--dir", dir)
	ready := regexp.MustCompile(`^godwit server ready on (127\.0\.0\.1:\d+) \(udp, tcp, websocket, http\)`).FindStringSubmatch(s.line())
	if ready == nil {
		t.Fatal("no ready line")
	}
	// Links shall carry the port that the server got.
	replace(t, filepath.Join(dir, "server.toml"), "127.0.0.1:4443", ready[1])
	return s, dir
}

func replace(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		t.Fatalf("%s does not contain %q", path, from)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startClient starts a client with its proxy on a free port, and gives the
// proxy's address.
func startClient(t *testing.T, dir string, args ...string) (*running, string) {
	t.Helper()
	c := start(t, append([]string{"client", "run", "--dir", dir, "--listen", "127.0.0.1:0"}, args...)...)
	line := c.line()
	ready := regexp.MustCompile(`^godwit client ready: SOCKS5 and HTTP proxy on (127\.0\.0\.1:\d+), inner address 10\.143\.0\.\d+ and fd2c:9f61:7e0b::\d+, path (udp|tcp|websocket) `).FindStringSubmatch(line)
	if ready == nil {
		t.Fatalf("got %q", line)
	}
	return c, ready[1]
}

// startTarget is a web site on loopback that says hello.
func startTarget(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(s.Close)
	return s.URL
}

// get fetches a page through a proxy, by SOCKS5 or by HTTP.
func get(t *testing.T, scheme, proxyAddress, page string) string {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	if scheme == "http" {
		tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxyAddress})
	} else {
		d, err := proxy.SOCKS5("tcp", proxyAddress, nil, proxy.Direct)
		if err != nil {
			t.Fatal(err)
		}
		tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.(proxy.ContextDialer).DialContext(ctx, network, address)
		}
	}
	resp, err := (&http.Client{Transport: tr}).Get(page)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// status asks a running client.
func status(t *testing.T, dir string) client.Status {
	t.Helper()
	r := godwit(t, "status", "--json", "--dir", dir)
	r.wantOK(t)
	var s client.Status
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServerAndTwoClients(t *testing.T) {
	server, serverDir := startServer(t)
	target := startTarget(t)
	// Invited while the server runs.
	dirs := []string{join(t, invite(t, serverDir, "first")), join(t, invite(t, serverDir, "second"))}
	first, proxyFirst := startClient(t, dirs[0])
	_, proxySecond := startClient(t, dirs[1], "--encapsulations", "tcp")
	for _, scheme := range []string{"socks5", "http"} {
		for _, p := range []string{proxyFirst, proxySecond} {
			if got := get(t, scheme, p, target); got != "hello" {
				t.Errorf("by %s: %q", scheme, got)
			}
		}
	}
	s := status(t, dirs[1])
	if s.State != "connected" || s.Path == nil || s.Path.Encapsulation != "tcp" || s.Path.Verdict != "none" || s.BytesSent == 0 || s.BytesReceived == 0 {
		t.Errorf("got %+v", s)
	}
	if len(s.Registrations) == 0 {
		t.Error("no registration")
	}
	r := godwit(t, "client", "force", "udp", "--dir", dirs[1])
	r.wantError(t, exitError, "the client has no encapsulation udp", "name one of tcp, auto")
	r = godwit(t, "client", "force", "tcp", "--dir", dirs[1])
	r.wantOK(t)
	if !strings.HasPrefix(r.stdout, "all data goes by tcp now, from 127.0.0.1:") || status(t, dirs[1]).Forced != "tcp" {
		t.Errorf("got %q", r.stdout)
	}
	godwit(t, "client", "force", "websocket", "--dir", dirs[0]).wantOK(t)
	if s := status(t, dirs[0]); s.Path == nil || s.Path.Encapsulation != "websocket" {
		t.Errorf("forced to websocket, the path is %+v", s.Path)
	}
	godwit(t, "client", "force", "auto", "--dir", dirs[0]).wantOK(t)
	if f := status(t, dirs[0]).Forced; f != "" {
		t.Errorf("let go of, and %s is forced", f)
	}
	watch := start(t, "status", "--watch", "--dir", dirs[1])
	for range 2 { // it comes again
		watch.lineWith("connected")
	}
	if code := watch.stop(); code != exitOK {
		t.Errorf("the end of watching gives %d: %s", code, watch.stderr)
	}
	r = godwit(t, "status", "--dir", dirs[1])
	r.wantOK(t)
	if !strings.HasPrefix(r.stdout, "state        connected\n") || !strings.Contains(r.stdout, "\nforced       tcp\n") {
		t.Errorf("got %q", r.stdout)
	}
	godwit(t, "client", "run", "--dir", dirs[0], "--listen", "127.0.0.1:0").wantError(t, exitError, "a client is running already, "+dirs[0])
	r = godwit(t, "server", "status", "--dir", serverDir)
	r.wantOK(t)
	if !strings.HasPrefix(r.stdout, "clients     2 connected, 0 remembered\n") || !regexp.MustCompile(`\nsecond +connected +tcp +127\.0\.0\.1:`).MatchString(r.stdout) {
		t.Errorf("the server's status is %q", r.stdout)
	}

	if code := first.stop(); code != exitOK {
		t.Errorf("the client ended with %d", code)
	}
	if _, err := os.Stat(filepath.Join(dirs[0], controlSocket)); err == nil {
		t.Error("the control socket was left behind")
	}
	if code := server.stop(); code != exitOK {
		t.Errorf("the server ended with %d", code)
	}
	godwit(t, "server", "status", "--dir", serverDir).wantError(t, exitError, "no server is running, "+serverDir, "godwit server run")
	// What the server wrote down before it ended.
	r = godwit(t, "server", "clients", "--dir", serverDir)
	r.wantOK(t)
	if strings.Count(r.stdout, "joined") != 2 {
		t.Errorf("got %q", r.stdout)
	}
}

func TestRefusals(t *testing.T) {
	_, serverDir := startServer(t)
	args := func(dir string) []string {
		return []string{"client", "run", "--dir", dir, "--listen", "127.0.0.1:0", "--log-level", "error"}
	}
	t.Run("unknown client", func(t *testing.T) {
		dir := join(t, invite(t, serverDir, "unknown"))
		godwit(t, "server", "remove", "unknown", "--dir", serverDir).wantOK(t)
		godwit(t, args(dir)...).wantError(t, exitError, "refuses this client's key", "ask the server's operator")
	})
	t.Run("invitation not used in time", func(t *testing.T) {
		dir := join(t, invite(t, serverDir, "late"))
		path := filepath.Join(serverDir, "clients", "late.toml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		expires := regexp.MustCompile(`expires = .*`).FindString(string(text))
		replace(t, path, expires, "expires = 2001-01-01T00:00:00Z")
		godwit(t, args(dir)...).wantError(t, exitError, "expired", "ask the server's operator")
	})
	t.Run("another server's key", func(t *testing.T) {
		dir := join(t, invite(t, serverDir, "wary"))
		path := filepath.Join(dir, "client.toml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		key := regexp.MustCompile(`server_key = "(.*)"`).FindStringSubmatch(string(text))
		replace(t, path, key[1], base64.StdEncoding.EncodeToString(make([]byte, 32)))
		godwit(t, args(dir)...).wantError(t, exitError, "another key", "ask its operator")
	})
}

func TestServerOutOfReach(t *testing.T) {
	// A port where nobody answers.
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	serverDir := initServer(t)
	replace(t, filepath.Join(serverDir, "server.toml"), "127.0.0.1:4443", u.LocalAddr().String())
	dir := join(t, invite(t, serverDir, "laptop"))
	c := start(t, "client", "run", "--dir", dir, "--listen", "127.0.0.1:0", "--log-level", "error")
	want := "godwit: the server is not reachable yet, " + u.LocalAddr().String() + ": still trying"
	c.stderr.await(t, want)
	if s := status(t, dir); s.State != "connecting" {
		t.Errorf("the state is %q", s.State)
	}
	if code := c.stop(); code != exitOK {
		t.Errorf("ended with %d", code)
	}
}

func TestDemo(t *testing.T) {
	d := start(t, "demo")
	ready := regexp.MustCompile(`proxy on (127\.0\.0\.1:\d+)`).FindStringSubmatch(d.line())
	if ready == nil {
		t.Fatal("no ready line")
	}
	d.lineWith("curl --socks5-hostname " + ready[1] + " http://site.demo/ ")
	d.lineWith("curl -x http://" + ready[1] + " http://site.demo/ ")
	d.lineWith("Press Enter to move")
	for _, scheme := range []string{"socks5", "http"} {
		if got := get(t, scheme, ready[1], "http://site.demo/"); !strings.Contains(got, "It flies") {
			t.Errorf("by %s: %q", scheme, got)
		}
	}
	for range 2 {
		if _, err := io.WriteString(d.stdin, "\n"); err != nil {
			t.Fatal(err)
		}
		if l := d.line(); !regexp.MustCompile(`^move \d+: udp selected in \d+\.\d ms, translation none; answered: `).MatchString(l) {
			t.Errorf("got %q", l)
		}
	}
	if err := d.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	d.lineWith("standard input is closed")
	if got := get(t, "socks5", ready[1], "http://site.demo/"); !strings.Contains(got, "It flies") {
		t.Errorf("after the end of standard input: %q", got)
	}
	if code := d.stop(); code != exitOK {
		t.Errorf("ended with %d", code)
	}
}

func TestDemoReachesItsSiteAlone(t *testing.T) {
	site, err := startSite()
	if err != nil {
		t.Fatal(err)
	}
	defer site.close()
	e := demoEgress(site.addr)
	conn, err := e.DialContext(t.Context(), "tcp", "site.demo:80")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	for _, address := range []string{site.addr.String(), "site.demo:81", "192.0.2.81:80", "localhost:80", "example.org:80"} {
		if conn, err := e.DialContext(t.Context(), "tcp", address); err == nil {
			_ = conn.Close()
			t.Errorf("%s was reached", address)
		}
	}
}
