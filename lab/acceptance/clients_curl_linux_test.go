//go:build netns

package acceptance

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// curlWays are how curl can be told of the proxy: by flags, or by the variables
// that most command line tools know.
var curlWays = []struct {
	name      string
	env, args []string
	local     bool // curl resolves names itself
}{
	{name: "SOCKS5, name", args: []string{"--socks5-hostname", proxyAddress}},
	{name: "SOCKS5, address", args: []string{"--socks5", proxyAddress}, local: true},
	{name: "SOCKS4A", args: []string{"--socks4a", proxyAddress}},
	{name: "HTTP", args: []string{"-x", "http://" + proxyAddress}},
	{name: "HTTP CONNECT", args: []string{"-x", "http://" + proxyAddress, "--proxytunnel"}},
	{name: "variables", env: []string{
		"ALL_PROXY=socks5h://" + proxyAddress, "HTTPS_PROXY=http://" + proxyAddress, "HTTP_PROXY=http://" + proxyAddress,
		"NO_PROXY=localhost,127.0.0.1",
	}},
}

// curl goes through the proxy in every way it knows, to sites with TLS and
// without. Only the server can resolve names.
func TestCurl(t *testing.T) {
	d := startDesk(t)
	id := newIdentity(t)
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, this is %s by %s\n", r.RemoteAddr, r.Host, r.Proto)
	})
	d.serve(t, "80", nil, hello)
	d.serve(t, "443", id, hello)

	curl := func(env []string, args ...string) (int, string) {
		p := d.start(env, "curl", append([]string{"-sS", "--max-time", "50", "--cacert", id.file}, args...)...)
		code, err := p.Wait(within(t, time.Minute))
		if err != nil {
			t.Fatalf("curl: %v", err)
		}
		return code, p.Stdout.String()
	}
	// 6 means that the name was not resolved, according to curl's manual.
	if code, _ := curl(nil, "http://"+webName+"/"); code != 6 {
		t.Fatalf("curl without the proxy: exit code %d; the client should not be able to resolve names", code)
	}
	d.names.forgive()
	wantInGuide(t, "curl --socks5-hostname 127.0.0.1:1080 https://example.org/")
	wantInGuide(t, "export ALL_PROXY=socks5h://127.0.0.1:1080 HTTPS_PROXY=http://127.0.0.1:1080 HTTP_PROXY=http://127.0.0.1:1080")
	for _, way := range curlWays {
		for scheme, proto := range map[string]string{"http": "HTTP/1.1", "https": "HTTP/2.0"} {
			args := way.args
			if way.local {
				port := map[string]string{"http": "80", "https": "443"}[scheme]
				args = append([]string{"--resolve", webName + ":" + port + ":" + netns.TargetIPv4.String()}, args...)
			}
			code, out := curl(way.env, append(args, scheme+"://"+webName+"/")...)
			if code != 0 || !strings.HasPrefix(out, "hello 192.0.2.1:") || !strings.HasSuffix(out, "this is "+webName+" by "+proto+"\n") {
				t.Errorf("%s, %s: exit code %d, %q", way.name, scheme, code, out)
			}
		}
	}
	if code, out := curl(nil, "--socks5-hostname", proxyAddress, "http://no-such-name.test/"); code == 0 {
		t.Errorf("a name that does not exist: %q", out)
	}
	// The server's own network is closed but for what was allowed.
	if code, out := curl(nil, "--socks5-hostname", proxyAddress, "http://127.0.0.1:443/"); code == 0 {
		t.Errorf("the server's loopback: %q", out)
	}
}

// Downloads of curl, one in each way at a time and half of them with TLS, live
// through a move.
func TestCurlMove(t *testing.T) {
	d := startDesk(t)
	id := newIdentity(t)
	data := blob(t, 8*mega)
	type transfer struct {
		*pause
		process *netns.Process
		file    string
	}
	var transfers []*transfer
	handler := http.NewServeMux()
	d.serve(t, "80", nil, handler)
	d.serve(t, "443", id, handler)
	for i, way := range curlWays {
		x := &transfer{pause: newPause(t, 3*mega), file: filepath.Join(d.home, fmt.Sprint(i))}
		path := fmt.Sprintf("/%d", i)
		handler.Handle(path, x.handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })))
		host, scheme := webName, []string{"http", "https"}[i%2]
		if way.local {
			host = netns.TargetIPv4.String()
		}
		x.process = d.start(way.env, "curl", append(way.args, "-sS", "--cacert", id.file, "-o", x.file, scheme+"://"+host+path)...)
		transfers = append(transfers, x)
	}
	for _, x := range transfers {
		x.wait(t, d.ctx, x.process)
	}
	d.move(t, "cell")
	for _, x := range transfers {
		x.release()
	}
	for i, x := range transfers {
		d.finish(t, x.process)
		b, err := os.ReadFile(x.file)
		if err != nil || sha256.Sum256(b) != sha256.Sum256(data) {
			t.Errorf("%s: %d bytes of %d, or others, %v", curlWays[i].name, len(b), len(data), err)
		}
	}
}
