package site

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/web"
)

func get(h http.Handler, target string) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w.Result()
}

// TestFolder: what is in the folder is shown, and nothing else.
func TestFolder(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(outside, "secret"), "outside")
	for name, text := range map[string]string{
		"index.html": "front", "a.txt": "a", "full/index.html": "sub", "bare/b.txt": "b",
		".env": "hidden", ".git/config": "hidden", ".well-known/x": "known",
	} {
		write(filepath.Join(dir, name), text)
	}
	for _, link := range []struct{ to, name string }{{filepath.Join(outside, "secret"), "out"}, {"a.txt", "in"}, {outside, "outdir"}} {
		if err := os.Symlink(link.to, filepath.Join(dir, link.name)); err != nil {
			t.Fatal(err)
		}
	}
	h, closer, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	for path, want := range map[string]string{
		"/": "front", "/a.txt": "a", "/full/": "sub", "/bare/b.txt": "b", "/in": "a", "/.well-known/x": "known",
		"/bare/": "", "/bare": "", "/.env": "", "/.git/config": "", "/out": "", "/outdir/secret": "", "/missing": "",
		"/../" + filepath.Base(outside) + "/secret": "",
	} {
		resp := get(h, path)
		b, _ := io.ReadAll(resp.Body)
		code := http.StatusOK
		if want == "" {
			code, want = http.StatusNotFound, "404 page not found\n"
		}
		if resp.StatusCode != code || string(b) != want {
			t.Errorf("%s gives %s, %q", path, resp.Status, b)
		}
	}
	if resp := get(h, "/full"); resp.StatusCode != http.StatusMovedPermanently {
		t.Errorf("/full gives %s", resp.Status)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, what := range []string{"/no/such/folder", "ftp://x/", "http://", "http://user:pass@x/", "http://x/?q"} {
		if _, _, err := Open(what, nil); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// TestProxied: another web server answers, and is told whom.
func TestProxied(t *testing.T) {
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Host+" "+r.URL.Path+" "+r.Header.Get("X-Forwarded-For"))
	}))
	h, _, err := Open(back.URL+"/base", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp := get(h, "http://www.example.org/x")
	if b, _ := io.ReadAll(resp.Body); string(b) != "www.example.org /base/x 192.0.2.1" {
		t.Errorf("got %q", b)
	}
	back.Close()
	if resp := get(h, "/"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("without the web server: %s", resp.Status)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestForwarded has who is believed, and how far.
func TestForwarded(t *testing.T) {
	trusted := func(a netip.Addr) bool { return netip.MustParsePrefix("10.0.0.0/8").Contains(a) }
	for _, c := range []struct{ x, f, want string }{
		{"192.0.2.7", "", "192.0.2.7:0"},
		{"192.0.2.7, 10.0.0.2", "", "192.0.2.7:0"},
		{"198.51.100.1, 192.0.2.7, 10.0.0.2,10.0.0.3", "", "192.0.2.7:0"},
		{"192.0.2.7:4711", "", "192.0.2.7:4711"},
		{"2001:db8::7", "", "[2001:db8::7]:0"},
		{"[2001:db8::7]:4711", "", "[2001:db8::7]:4711"},
		{"::ffff:192.0.2.7", "", "192.0.2.7:0"},
		{"10.0.0.9", "", "10.0.0.9:0"},
		{"forged, 192.0.2.7", "", "192.0.2.7:0"},
		{"192.0.2.7, unknown", "", ""},
		{"fe80::1%eth0", "", ""},
		{"", `for=192.0.2.60;proto=http;by=203.0.113.43`, "192.0.2.60:0"},  // RFC 7239, Section 4
		{"", `For="[2001:db8:cafe::17]:4711"`, "[2001:db8:cafe::17]:4711"}, // Section 4
		{"", `for=192.0.2.43, for=198.51.100.17`, "198.51.100.17:0"},       // Section 4
		{"", `for=192.0.2.43, for="10.0.0.1:80";proto=https`, "192.0.2.43:0"},
		{"", `for=_hidden, for=_SEVKISEK`, ""}, // Section 6.3
		{"", `by=203.0.113.43`, ""},
		{"192.0.2.7", `for="192.0.2.7:99"`, "192.0.2.7:99"},
		{"192.0.2.7", `for=192.0.2.8`, ""}, // one of them is the visitor's own
		{"192.0.2.7", `for=_hidden`, ""},
		{"", "", ""},
		{strings.Repeat("10.0.0.1,", 100) + "10.0.0.1", "", "10.0.0.1:0"},
	} {
		h := http.Header{}
		if c.x != "" {
			h.Set("X-Forwarded-For", c.x)
		}
		if c.f != "" {
			h.Set("Forwarded", c.f)
		}
		got, ok := forwardedFor(h, trusted)
		if want := c.want; ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q and %q give %s, %v", c.x, c.f, got, ok)
		}
	}
}

// A glimpse is a mount that only looks.
type glimpse struct{ seen chan web.Visit }

func (g glimpse) ServeMount(_ http.ResponseWriter, _ *http.Request, v web.Visit) bool {
	g.seen <- v
	return false
}
func (glimpse) Close() error { return nil }

// TestVisit: mounts are told who asks, by the word of trusted proxies alone.
func TestVisit(t *testing.T) {
	config, hash := certificate(t)
	for name, c := range map[string]struct {
		from         string
		introduction string
		header       string
		tls          bool
		want         transports.Description
	}{
		"directly": {from: "192.0.2.7", want: transports.Description{Destination: netip.MustParseAddrPort("192.0.2.7:0")}},
		"TLS":      {from: "192.0.2.7", tls: true, want: transports.Description{Destination: netip.MustParseAddrPort("192.0.2.7:0"), CertHash: hash}},
		"not trusted": {from: "192.0.2.7", header: "X-Forwarded-For: 192.0.2.8\r\n",
			want: transports.Description{Destination: netip.MustParseAddrPort("192.0.2.7:0")}},
		"trusted": {from: "10.0.0.2", header: "X-Forwarded-For: 192.0.2.8\r\n",
			want: transports.Description{Destination: netip.MustParseAddrPort("192.0.2.8:0"), Proxy: "10.0.0.2"}},
		"introduced": {from: "10.0.0.2", introduction: "PROXY TCP4 192.0.2.8 198.51.100.9 1000 8443\r\n", tls: true,
			want: transports.Description{Source: netip.MustParseAddrPort("198.51.100.9:8443"), Destination: netip.MustParseAddrPort("192.0.2.8:0"), CertHash: hash}},
		"introduced, and lies": {from: "10.0.0.2", introduction: "PROXY TCP4 192.0.2.8 198.51.100.9 1000 8443\r\n", header: "X-Forwarded-For: 192.0.2.9\r\n",
			want: transports.Description{Source: netip.MustParseAddrPort("198.51.100.9:8443"), Destination: netip.MustParseAddrPort("192.0.2.8:0")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := transporttest.NewMemory()
				ln, err := n.ListenTCP(t.Context(), address)
				if err != nil {
					t.Fatal(err)
				}
				g := glimpse{make(chan web.Visit, 1)}
				defer port(config, ln, transporttest.NewRecorder(), Options{
					Mounts:  []web.Mount{g},
					Trusted: func(a netip.Addr) bool { return netip.MustParsePrefix("10.0.0.0/8").Contains(a) },
				})()
				conn, err := n.DialTCP(t.Context(), netip.MustParseAddr(c.from), address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, c.introduction)
				if c.tls {
					conn = tlsClient(conn)
				}
				io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: h\r\n"+c.header+"\r\n")
				d := (<-g.seen).Description
				want := c.want
				want.Authority, want.Path = "h", "/x"
				if !want.Source.IsValid() {
					want.Source = address
				}
				// Ports of clients are the network's to choose.
				d.Destination = netip.AddrPortFrom(d.Destination.Addr(), 0)
				d.Proxy, _, _ = strings.Cut(d.Proxy, ":")
				if d != want {
					t.Errorf("got %+v\nwant %+v", d, want)
				}
			})
		})
	}
}

// TestRedirect: plain visitors are sent to TLS, but not those who have it already
// at a trusted proxy.
func TestRedirect(t *testing.T) {
	for name, c := range map[string]struct {
		from, host, header, want string
	}{
		"plain":           {"192.0.2.7", "example.org", "", "https://example.org/a?b"},
		"with a port":     {"192.0.2.7", "example.org:80", "", "https://example.org/a?b"},
		"proxy with TLS":  {"10.0.0.2", "example.org", "X-Forwarded-For: 192.0.2.8\r\nX-Forwarded-Proto: https\r\n", ""},
		"proxy, RFC 7239": {"10.0.0.2", "example.org", "Forwarded: for=192.0.2.8;proto=https\r\n", ""},
		"proxy without":   {"10.0.0.2", "example.org", "X-Forwarded-For: 192.0.2.8\r\nX-Forwarded-Proto: http\r\n", "https://example.org/a?b"},
		"a liar":          {"192.0.2.7", "example.org", "X-Forwarded-For: 192.0.2.8\r\nX-Forwarded-Proto: https\r\n", "https://example.org/a?b"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := transporttest.NewMemory()
				ln, err := n.ListenTCP(t.Context(), address)
				if err != nil {
					t.Fatal(err)
				}
				defer port(nil, ln, transporttest.NewRecorder(), Options{
					Redirect: true, Trusted: func(a netip.Addr) bool { return netip.MustParsePrefix("10.0.0.0/8").Contains(a) },
				})()
				tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return n.DialTCP(ctx, netip.MustParseAddr(c.from), address)
				}}
				defer tr.CloseIdleConnections()
				req, err := http.NewRequest(http.MethodGet, "http://"+c.host+"/a?b", nil)
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(c.header) {
					k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
					req.Header.Set(k, v)
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if got := resp.Header.Get("Location"); got != c.want || (resp.StatusCode == http.StatusMovedPermanently) != (c.want != "") {
					t.Errorf("%s to %q", resp.Status, got)
				}
			})
		})
	}
}

// TestPatience: a large answer may take as long as it takes, as long as some of it
// is taken now and then; who takes none of it is left.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		const size = 4 << 20
		ended := make(chan error, 2)
		stop := port(nil, ln, transporttest.NewRecorder(), Options{Content: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(w, io.LimitReader(zeros{}, size))
			ended <- err
		})})
		defer stop()
		conn, err := n.DialTCP(t.Context(), netip.Addr{}, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		begin := time.Now()
		for got, buf := 0, make([]byte, 128<<10); got < size; {
			time.Sleep(10 * time.Second)
			k, err := conn.Read(buf)
			if got += k; err != nil {
				t.Fatalf("after %v and %d bytes: %v", time.Since(begin), got, err)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		begin = time.Now()
		if err := <-ended; err == nil || time.Since(begin) != stall {
			t.Errorf("who takes nothing is left after %v: %v", time.Since(begin), err)
		}
		time.Sleep(time.Minute)
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
