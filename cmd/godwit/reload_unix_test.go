//go:build unix

package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// freePort gives an address of loopback that nobody listens at, and that no
// program connects from by itself, so that nobody takes it meanwhile.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.7.7.7:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// hangUp sends SIGHUP to everything that runs in this process.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// Settings change while a stream goes on.
func TestReload(t *testing.T) {
	server, serverDir := startServer(t)
	dir := join(t, invite(t, serverDir, "laptop"))
	file := filepath.Join(dir, "client.toml")
	before, after, forwarded := freePort(t), freePort(t), freePort(t)
	replace(t, file, "127.0.0.1:1080", before)
	c := start(t, "client", "run", "--dir", dir)
	c.lineWith("ready")

	// A stream that waits in the midst of an answer.
	more := make(chan string)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			for {
				select {
				case text, ok := <-more:
					if !ok {
						return
					}
					_, _ = io.WriteString(w, text)
					w.(http.Flusher).Flush()
				case <-t.Context().Done(): // the test has failed
					return
				}
			}
		}
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(site.Close)
	stream, err := net.Dial("tcp", before)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := io.WriteString(stream, "GET "+site.URL+"/slow HTTP/1.0\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	more <- "one "

	// A mistake changes nothing.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, file, "lisen = \"x\"\n")
	hangUp(t)
	c.stderr.await(t, "settings not read, the old ones stay in force")
	c.stderr.await(t, "did you mean listen?")
	server.stderr.await(t, "keys=endpoint") // startServer has put it right
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}

	target := strings.TrimPrefix(site.URL, "http://")
	replace(t, file, before, after)
	replace(t, file, `log_level = "info"`, `log_level = "debug"`)
	replace(t, file, `early_data = "known"`, `early_data = "never"`)
	replace(t, file, `fingerprint = "chrome"`, `fingerprint = "go"`)
	replace(t, file, `"udp", "tcp", "websocket"`, `"tcp", "udp"`)
	appendTo(t, file, `forward = ["tcp `+forwarded+` `+target+`"]`+"\n")
	hangUp(t)
	c.stderr.await(t, `"settings changed" keys="log_level, listen, early_data, forward, fingerprint"`)
	c.stderr.await(t, `stop godwit client run and start it again" keys=encapsulations`)
	if got := get(t, "socks5", after, site.URL); got != "hello" {
		t.Errorf("at the new address: %q", got)
	}
	if conn, err := net.Dial("tcp", before); err == nil {
		conn.Close()
		t.Error("the old address is there")
	}
	page, err := http.Get("http://" + forwarded + "/")
	if err != nil {
		t.Fatal(err)
	}
	page.Body.Close()
	more <- "two"
	close(more)
	all, err := io.ReadAll(stream)
	if err != nil || !strings.HasSuffix(string(all), "one two") {
		t.Errorf("the stream brought %q, %v", all, err)
	}
	// What waits for the next start is named once more, and nothing else.
	hangUp(t)
	c.stderr.await(t, "keys=encapsulations\ntime=")

	// The server closes what it no longer allows.
	replace(t, filepath.Join(serverDir, "server.toml"), `allow = ["127.0.0.0/8"]`, `allow = []`)
	replace(t, filepath.Join(serverDir, "server.toml"), `offload = true`, `offload = false`)
	hangUp(t)
	server.stderr.await(t, `keys=allow`)
	server.stderr.await(t, `keys=offload`)
	tr := &http.Transport{DisableKeepAlives: true}
	if resp, err := (&http.Client{Transport: tr}).Get("http://" + forwarded + "/"); err == nil {
		resp.Body.Close()
		t.Errorf("the server still lets it through: %s", resp.Status)
	}
}
