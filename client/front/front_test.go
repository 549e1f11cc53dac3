package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits that end at once unless something is broken.
const patience = 20 * time.Second

// world is a front on loopback whose dialer knows names that no resolver does.
type world struct {
	t     *testing.T
	s     *Server
	addr  string
	serve chan error

	mu     sync.Mutex
	hosts  map[string]func(ctx context.Context) (net.Conn, error)
	dialed []string
}

func newWorld(t *testing.T, c Config) *world {
	w := &world{t: t, serve: make(chan error, 1), hosts: map[string]func(context.Context) (net.Conn, error){}}
	c.Dial = w.dial
	w.s = New(c)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	go func() { w.serve <- w.s.Serve(ln) }()
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	if w.s == nil {
		return
	}
	if err := w.s.Close(); err != nil {
		w.t.Error(err)
	}
	w.s = nil
	if err := <-w.serve; !errors.Is(err, net.ErrClosed) {
		w.t.Errorf("Serve gives %v after Close", err)
	}
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	f := w.hosts[address]
	w.dialed = append(w.dialed, network+" "+address)
	w.mu.Unlock()
	if f == nil {
		return nil, fmt.Errorf("dial %s: %w", address, ErrHostUnreachable)
	}
	return f(ctx)
}

// host gives address to what listens at real.
func (w *world) host(address, real string) {
	w.answer(address, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", real)
	})
}

func (w *world) answer(address string, f func(context.Context) (net.Conn, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[address] = f
}

func (w *world) connect() *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// socksRequest is greeting and request for a name without authentication.
func socksRequest(cmd byte, name string, port uint16) []byte {
	b := []byte{5, 1, 0, 5, cmd, 0, 3, byte(len(name))}
	b = append(b, name...)
	return append(b, byte(port>>8), byte(port))
}

// socksReply reads both replies and gives REP.
func socksReply(t *testing.T, r io.Reader) byte {
	t.Helper()
	b := make([]byte, 2+10)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("replies: %v", err)
	}
	if want := []byte{5, 0, 5, b[3], 0, 1, 0, 0, 0, 0, 0, 0}; !bytes.Equal(b, want) {
		t.Fatalf("replies are %x, want %x", b, want)
	}
	return b[3]
}

// late is a target that answers when the application has finished sending.
func late(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				fmt.Fprintf(c, "%d bytes", len(b))
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

func TestWebThroughEachFront(t *testing.T) {
	site := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Proxy-Authorization", "Proxy-Connection", "X-Forwarded-For", "Via"} {
			if v := r.Header.Get(h); v != "" {
				t.Errorf("%s: %s reaches the site", h, v)
			}
		}
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s %d", r.Host, r.URL, len(b))
	})
	plain, secure := httptest.NewServer(site), httptest.NewTLSServer(site)
	defer plain.Close()
	defer secure.Close()

	for _, tt := range []struct{ name, scheme, user, proxyUser string }{
		{"SOCKS5", "socks5h", "", ""},
		{"SOCKS5 with a user", "socks5h", "ann", "ann"},
		{"HTTP", "http", "", ""},
		{"HTTP with a user", "http", "ann", "ann"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Username: tt.user}
			proxy := &url.URL{Scheme: tt.scheme}
			if tt.user != "" {
				c.Password = "secret"
				proxy.User = url.UserPassword(tt.user, c.Password)
			}
			w := newWorld(t, c)
			w.host("plain.invalid:80", plain.Listener.Addr().String())
			w.host("secure.invalid:8443", secure.Listener.Addr().String())
			proxy.Host = w.addr
			tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr, Timeout: patience}
			for _, target := range []string{"http://plain.invalid/a?b=c", "https://secure.invalid:8443/a?b=c"} {
				resp, err := client.Post(target, "text/plain", strings.NewReader(strings.Repeat("x", 300_000)))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				u, _ := url.Parse(target)
				if want := u.Host + " /a?b=c 300000"; err != nil || string(b) != want {
					t.Errorf("%s gives %q, %v, want %q", target, b, err, want)
				}
			}
			if got := strings.Join(w.dialed, ", "); got != "tcp plain.invalid:80, tcp secure.invalid:8443" {
				t.Errorf("dialed %s", got)
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	w := newWorld(t, Config{Username: "ann", Password: "secret"})
	for _, up := range []string{"ann:wrong", "bob:secret", ":", "ann:secretsecret"} {
		user, password, _ := strings.Cut(up, ":")
		for _, scheme := range []string{"http", "socks5h"} {
			tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: scheme, Host: w.addr, User: url.UserPassword(user, password)})}
			for _, target := range []string{"http://x.invalid/", "https://x.invalid/"} {
				resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get(target)
				if err == nil {
					resp.Body.Close()
					if resp.StatusCode != http.StatusProxyAuthRequired || resp.Header.Get("Proxy-Authenticate") == "" {
						t.Errorf("%s by %s with %s: %s", target, scheme, up, resp.Status)
					}
				}
			}
			tr.CloseIdleConnections()
		}
	}
	// No method both understand: X'FF', RFC 1928, Section 3.
	c := w.connect()
	_, _ = c.Write([]byte{5, 1, 0})
	if b, _ := io.ReadAll(c); !bytes.Equal(b, []byte{5, 0xff}) {
		t.Errorf("without a user the answer is %x", b)
	}
	if len(w.dialed) > 0 {
		t.Errorf("dialed %v", w.dialed)
	}
}

func TestErrorsReachTheApplication(t *testing.T) {
	w := newWorld(t, Config{})
	for i, tt := range []struct {
		err    error
		reply  byte
		status int
	}{
		{fmt.Errorf("inside: %w", ErrNotAllowed), 2, 403},
		{fmt.Errorf("inside: %w", ErrNetworkUnreachable), 3, 502},
		{fmt.Errorf("inside: %w", ErrHostUnreachable), 4, 502},
		{fmt.Errorf("inside: %w", ErrRefused), 5, 502},
		{fmt.Errorf("inside: %w", ErrTimeout), 6, 504},
		{fmt.Errorf("inside: %w", context.DeadlineExceeded), 6, 504},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, 6, 504},
		{errors.New("something else"), 1, 502},
	} {
		name := fmt.Sprintf("host%d.invalid", i)
		w.answer(name+":80", func(context.Context) (net.Conn, error) { return nil, tt.err })
		c := w.connect()
		_, _ = c.Write(socksRequest(1, name, 80))
		if got := socksReply(t, c); got != tt.reply {
			t.Errorf("%v: SOCKS reply %d, want %d", tt.err, got, tt.reply)
		}
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("%v: after the refusal %x, %v", tt.err, b, err)
		}
		for _, request := range []string{"CONNECT " + name + ":80 HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://" + name + "/ HTTP/1.1\r\nHost: x\r\n\r\n"} {
			c := w.connect()
			_, _ = io.WriteString(c, request)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Errorf("%v: %.7s gives %d, want %d", tt.err, request, resp.StatusCode, tt.status)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t, Config{})
	for _, tt := range []struct{ name, send, want string }{
		{"BIND", string(socksRequest(2, "x.invalid", 80)), "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"UDP ASSOCIATE", string(socksRequest(3, "x.invalid", 80)), "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"unknown command", string(socksRequest(9, "x.invalid", 80)), "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"unknown address type", "\x05\x01\x00\x05\x01\x00\x02", "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"empty name", string(socksRequest(1, "", 80)), "\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"BIND of SOCKS4", "\x04\x02\x00\x50\x7f\x00\x00\x01\x00", "\x00\x5b"},
		{"TLS", "\x16\x03\x01\x02\x00\x01", ""},
		{"CONNECT without a port", "CONNECT x.invalid HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400"},
		{"CONNECT to port 0", "CONNECT x.invalid:0 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400"},
		{"CONNECT to a path", "CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400"},
		{"https by forwarding", "GET https://x.invalid/ HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400"},
		{"a header without end", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 2*maxHeader), "HTTP/1.1 431"},
		{"POST to this port", "POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405"},
		{"an unknown page", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.connect()
			_, _ = io.WriteString(c, tt.send)
			_ = c.CloseWrite()
			b, _ := io.ReadAll(c)
			if !strings.HasPrefix(string(b), tt.want) || tt.want == "" && len(b) > 0 {
				t.Errorf("answer %q, want %q", b, tt.want)
			}
		})
	}
	if len(w.dialed) > 0 {
		t.Errorf("dialed %v", w.dialed)
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t, Config{Username: "ann", Password: "secret"}) // the pages need no password
	for path, want := range map[string]string{
		"/proxy.pac": `return "PROXY ` + w.addr + `";`,
		"/":          "curl --socks5-hostname " + w.addr,
	} {
		tr := &http.Transport{}
		resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get("http://" + w.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s gives %s %q", path, resp.Status, b)
		}
		tr.CloseIdleConnections()
	}
}

// The application closes its direction, and the answer still arrives; what it
// sent with the request is the first data.
func TestHalfCloseAndEarlyData(t *testing.T) {
	w := newWorld(t, Config{})
	w.host("late.invalid:7", late(t))
	early := strings.Repeat("x", 100_000)

	c := w.connect()
	_, _ = c.Write(append(socksRequest(1, "late.invalid", 7), early...))
	_ = c.CloseWrite()
	if got := socksReply(t, c); got != 0 {
		t.Fatalf("SOCKS reply %d", got)
	}
	if b, err := io.ReadAll(c); string(b) != "100000 bytes" {
		t.Errorf("by SOCKS5 the answer is %q, %v", b, err)
	}

	c = w.connect()
	_, _ = io.WriteString(c, "CONNECT late.invalid:7 HTTP/1.1\r\nHost: late.invalid:7\r\n\r\n"+early)
	_ = c.CloseWrite()
	b, err := io.ReadAll(c)
	if got := string(b); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasSuffix(got, "\r\n\r\n100000 bytes") {
		t.Errorf("by CONNECT the answer is %q, %v", got, err)
	}
}

// The target closes first, and what the application still has to say arrives.
func TestHalfCloseByTheTarget(t *testing.T) {
	w := newWorld(t, Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w.host("first.invalid:7", ln.Addr().String())
	c := w.connect()
	_, _ = c.Write(socksRequest(1, "first.invalid", 7))
	socksReply(t, c)
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	_, _ = io.WriteString(far, "bye")
	_ = far.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
		t.Errorf("the application reads %q, %v", b, err)
	}
	_, _ = io.WriteString(c, "and thanks")
	_ = c.Close()
	if b, err := io.ReadAll(far); string(b) != "and thanks" || err != nil {
		t.Errorf("the target reads %q, %v", b, err)
	}
}

// An application that goes away while its dial waits ends the dial.
func TestApplicationGivesUp(t *testing.T) {
	w := newWorld(t, Config{})
	began, ended := make(chan struct{}), make(chan struct{})
	w.answer("slow.invalid:80", func(ctx context.Context) (net.Conn, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	})
	for _, request := range []string{
		string(socksRequest(1, "slow.invalid", 80)),
		"CONNECT slow.invalid:80 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://slow.invalid/ HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c := w.connect()
		_, _ = io.WriteString(c, request)
		<-began
		_ = c.Close()
		<-ended
	}
}

// What arrives while the dial waits is not lost.
func TestDataDuringDial(t *testing.T) {
	w := newWorld(t, Config{})
	real := late(t)
	began, sent := make(chan struct{}), make(chan struct{})
	w.answer("slow.invalid:7", func(ctx context.Context) (net.Conn, error) {
		close(began)
		<-sent
		return net.Dial("tcp", real)
	})
	c := w.connect()
	_, _ = c.Write(socksRequest(1, "slow.invalid", 7))
	<-began
	_, _ = io.WriteString(c, "12345")
	close(sent)
	socksReply(t, c)
	_, _ = io.WriteString(c, "678")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "8 bytes" {
		t.Errorf("the answer is %q, %v", b, err)
	}
}

// Close ends connections in every state; goleak sees what stays.
func TestClose(t *testing.T) {
	w := newWorld(t, Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w.host("quiet.invalid:80", ln.Addr().String())
	began := make(chan struct{}, 9)
	w.answer("slow.invalid:80", func(ctx context.Context) (net.Conn, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	var apps []net.Conn
	for _, request := range []string{
		"", "\x05", "\x05\x01\x00", "G", "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		string(socksRequest(1, "quiet.invalid", 80)),
		"CONNECT quiet.invalid:80 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://quiet.invalid/ HTTP/1.1\r\nHost: x\r\n\r\n",
		string(socksRequest(1, "slow.invalid", 80)),
		"CONNECT slow.invalid:80 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://slow.invalid/ HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c := w.connect()
		_, _ = io.WriteString(c, request)
		apps = append(apps, c)
	}
	for range 3 {
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		apps = append(apps, far)
		<-began
	}
	w.close()
	for i, c := range apps {
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open", i)
		}
	}
	if _, err := net.Dial("tcp", w.addr); err == nil {
		t.Error("the port is still open")
	}
}

func TestServeAfterClose(t *testing.T) {
	s := New(Config{})
	_ = s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve gives %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
}
