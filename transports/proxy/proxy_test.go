package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/things-go/go-socks5"
	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
	"github.com/godwit-net/godwit/transports/system"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// RFC 7616, Section 3.9.1.
func TestDigestVectors(t *testing.T) {
	for algorithm, want := range map[string]string{
		"MD5":     "8ca523f5e9506fed4657c9700eebdbec",
		"SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		cs := parseChallenges(`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=` + algorithm +
			`, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`)
		if len(cs) != 1 {
			t.Fatalf("%d challenges", len(cs))
		}
		cs[0].count = 1
		got := cs[0].digest("Mufasa", "Circle of Life", "GET", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
		if !strings.Contains(got, `response="`+want+`"`) || !strings.Contains(got, "nc=00000001") {
			t.Errorf("%s: %s", algorithm, got)
		}
	}
}

func TestChallengesAreToldApart(t *testing.T) {
	cs := parseChallenges(`Negotiate, Basic realm="a, b=\"c\"", Digest realm=x , nonce = "n", stale=TRUE,NTLM`)
	var got []string
	for _, c := range cs {
		got = append(got, fmt.Sprintf("%s %v %v", c.scheme, c.params, c.stale))
	}
	want := `[negotiate map[] false basic map[realm:a, b="c"] false digest map[nonce:n realm:x stale:TRUE] true ntlm map[] false]`
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Digest realm="x", nonce="\"`)
	f.Add("Basic a=b,,=, c")
	f.Fuzz(func(t *testing.T, s string) {
		a := authenticator{user: "u", pass: "p"}
		if _, err := a.challenged([]string{s}); err != nil {
			return
		}
		if _, h := a.header("CONNECT", "a:1"); strings.ContainsAny(h, "\r\n\x00") {
			t.Errorf("a header of several lines: %q", h)
		}
	})
}

// office is an HTTP proxy in front of an echo service.
type office struct {
	challenges []string
	good       func(authorization string) bool
	status     int // in place of connecting
	closing    bool

	mu    sync.Mutex
	asked []string // Proxy-Authorization of each request
	conns int
}

func (o *office) start(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { o.serve(c) })
		}
	})
	t.Cleanup(func() { ln.Close(); tasks.Wait() })
	return ln.Addr().String()
}

func (o *office) serve(c net.Conn) {
	defer c.Close()
	o.mu.Lock()
	o.conns++
	o.mu.Unlock()
	br := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		auth := r.Header.Get("Proxy-Authorization")
		o.mu.Lock()
		o.asked = append(o.asked, auth)
		o.mu.Unlock()
		switch {
		case r.Method != http.MethodConnect || r.RequestURI != "vpn.example.org:443" || r.Host != r.RequestURI:
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		case o.status != 0:
			fmt.Fprintf(c, "HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno", o.status)
		case len(o.challenges) > 0 && (auth == "" || !o.good(auth)):
			h := "HTTP/1.1 407 Who are you\r\nContent-Length: 5\r\n"
			for _, ch := range o.challenges {
				h += "Proxy-Authenticate: " + ch + "\r\n"
			}
			if o.closing {
				h += "Connection: close\r\n"
			}
			fmt.Fprint(c, h+"\r\nhello")
			if o.closing {
				return
			}
		default:
			// The first bytes of the server come with the answer.
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\nwelcome ")
			io.Copy(c, br)
			return
		}
	}
}

// dialer is a transport that gives its connection.
type dialer struct{ conn net.Conn }

func (d *dialer) Name() transports.Name { return transports.TCP }

func (d *dialer) Dial(ctx context.Context, o transports.Opening) (c transports.Carrier, err error) {
	d.conn, err = o.Network.DialTCP(ctx, o.Local, o.Remote)
	return nil, err
}

// through connects through a proxy, with the option of a target, and checks it.
func through(t *testing.T, u *Upstream, target, greeting string) error {
	t.Helper()
	d := &dialer{}
	w := Wrap(d, u, Options{Target: target})
	if got := w.(transports.Indirect).Indirect(); got != u.Host() {
		t.Errorf("indirect by %s", got)
	}
	_, err := w.Dial(t.Context(), transports.Opening{Network: system.New(), Local: netip.MustParseAddr("192.0.2.99"), Remote: netip.MustParseAddrPort("192.0.2.1:443")})
	if err != nil {
		return err
	}
	defer d.conn.Close()
	if got := stream.Describe(d.conn); got.Proxy != u.Host() || got.Destination.String() != "192.0.2.1:443" {
		t.Errorf("described as %+v", got)
	}
	fmt.Fprint(d.conn, "ping")
	b := make([]byte, len(greeting)+4)
	if _, err := io.ReadFull(d.conn, b); err != nil || string(b) != greeting+"ping" {
		t.Errorf("read %q, %v", b, err)
	}
	return nil
}

const secret = "o:p@n s/sam"

func upstream(t *testing.T, scheme, user, at string) *Upstream {
	u, err := Parse(scheme + "://" + user + at)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestConnect(t *testing.T) {
	const user = "ali:o%3Ap%40n%20s%2Fsam@"
	basic := func(a string) bool { return a == "Basic YWxpOm86cEBuIHMvc2Ft" }
	digest := func(a string) bool { return strings.HasPrefix(a, `Digest username="ali", realm="r"`) }
	newer := func(a string) bool { return digest(a) && strings.Contains(a, "algorithm=SHA-256") }
	for _, c := range []struct {
		name, user string
		o          *office
		want       error
		asked      int // requests of the first and of a second connection
		conns      int
	}{
		{"no authentication", "", &office{}, nil, 2, 2},
		{"basic", user, &office{challenges: []string{`Basic realm="r"`}, good: basic}, nil, 3, 2},
		{"basic, closing", user, &office{challenges: []string{`Basic realm="r"`}, good: basic, closing: true}, nil, 3, 3},
		{"digest", user, &office{challenges: []string{`Digest realm="r", nonce="n", qop="auth"`}, good: digest}, nil, 3, 2},
		{"the best", user, &office{challenges: []string{`Negotiate`, `Basic realm="r", Digest realm="r", nonce="n", qop="auth"`, `Digest realm="r", nonce="m", qop="auth", algorithm=SHA-256`}, good: newer}, nil, 3, 2},
		{"wrong password", user, &office{challenges: []string{`Basic realm="r"`}, good: func(string) bool { return false }}, ErrCredentials, 4, 2},
		{"no password", "", &office{challenges: []string{`Basic realm="r"`}, good: basic}, ErrCredentials, 2, 2},
		{"unknown way", user, &office{challenges: []string{`NTLM`}, good: basic}, ErrCredentials, 2, 2},
		{"always stale", user, &office{challenges: []string{`Digest realm="r", nonce="n", qop="auth", stale=true`}, good: func(string) bool { return false }}, ErrCredentials, 8, 2},
		{"forbidden", "", &office{status: 403}, ErrForbidden, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := upstream(t, "http", c.user, c.o.start(t))
			for range 2 {
				if err := through(t, u, "vpn.example.org:443", "welcome "); !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				} else if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "ali")) {
					t.Errorf("the error tells the password: %v", err)
				}
			}
			c.o.mu.Lock()
			defer c.o.mu.Unlock()
			if len(c.o.asked) != c.asked || c.o.conns != c.conns {
				t.Errorf("%d requests on %d connections, want %d on %d", len(c.o.asked), c.o.conns, c.asked, c.conns)
			}
			if c.o.asked[0] != "" {
				t.Errorf("the first request says already %q", c.o.asked[0])
			}
		})
	}
}

func TestSOCKS5(t *testing.T) {
	start := func(opts ...socks5.Option) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, socks5.WithDial(func(_ context.Context, _, address string) (net.Conn, error) {
			if address != "192.0.2.1:443" {
				return nil, fmt.Errorf("asked for %s", address)
			}
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				io.Copy(far, far)
			}()
			return addressed{near}, nil
		}))
		done := make(chan struct{})
		go func() {
			defer close(done)
			socks5.NewServer(opts...).Serve(ln)
		}()
		t.Cleanup(func() { ln.Close(); <-done })
		return ln.Addr().String()
	}
	if err := through(t, upstream(t, "socks5", "", start()), "", ""); err != nil {
		t.Error(err)
	}
	at := start(socks5.WithCredential(socks5.StaticCredentials{"ali": secret}))
	if err := through(t, upstream(t, "socks5h", "ali:o%3Ap%40n%20s%2Fsam@", at), "", ""); err != nil {
		t.Error(err)
	}
	if err := through(t, upstream(t, "socks5", "ali:wrong@", at), "", ""); err == nil || strings.Contains(err.Error(), "wrong@") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// addressed is a pipe with the address that SOCKS replies name.
type addressed struct{ net.Conn }

// CloseWrite lets the library end the other direction.
func (a addressed) CloseWrite() error { return a.Close() }

func (addressed) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 1} }

func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	for _, scheme := range []string{"http", "https", "socks5"} {
		if err := through(t, upstream(t, scheme, "", ln.Addr().String()), "", ""); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{}, ""},
		{map[string]string{"HTTPS_PROXY": "http://a:1"}, "http://a:1"},
		{map[string]string{"https_proxy": "a:1", "ALL_PROXY": "socks5://b"}, "http://a:1"},
		{map[string]string{"all_proxy": "socks5h://u:p@b"}, "socks5://b:1080"},
		{map[string]string{"ALL_PROXY": "socks5://b", "NO_PROXY": "example.com,.example.org"}, ""},
		{map[string]string{"HTTPS_PROXY": "https://b", "no_proxy": "example.org:80"}, "https://b:443"},
	} {
		u, err := FromEnvironment(func(k string) string { return c.env[k] }, "vpn.example.org:443")
		got := ""
		if u != nil {
			got = fmt.Sprintf("%+v", u)
		}
		if err != nil || got != c.want {
			t.Errorf("%v: %q, %v, want %q", c.env, got, err, c.want)
		}
	}
	for _, bad := range []string{"ftp://a", "http://", "http://u:geheim@a/path", "http://u:geheim@a:x y", "http://u:ge%zzheim@a", "socks5://" + strings.Repeat("u", 256) + "@a"} {
		if u, err := Parse(bad); err == nil || strings.Contains(err.Error(), "heim") {
			t.Errorf("%q: %v, %v", bad, u, err)
		}
	}
}
