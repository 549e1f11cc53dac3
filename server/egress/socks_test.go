package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const patience = 20 * time.Second

func tcp(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serve runs the service on loopback and gives its address and a function that
// ends it.
func serve(t testing.TB, dial func(ctx context.Context, network, address string) (net.Conn, error)) (string, func()) {
	ln := tcp(t)
	done := make(chan error, 1)
	go func() { done <- ServeSOCKS(ln, dial, nil) }()
	end := sync.OnceFunc(func() {
		_ = ln.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ServeSOCKS gives %v after Close", err)
		}
	})
	t.Cleanup(end)
	return ln.Addr().String(), end
}

func connect(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func request(cmd byte, name string, port uint16) []byte {
	b := append([]byte{5, 1, 0, 5, cmd, 0, 3, byte(len(name))}, name...)
	return append(b, byte(port>>8), byte(port))
}

func readReply(t testing.TB, r io.Reader) byte {
	t.Helper()
	b := make([]byte, 12)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("replies: %v", err)
	}
	if !bytes.Equal(b[:3], []byte{5, 0, 5}) {
		t.Fatalf("replies are %x", b)
	}
	return b[3]
}

// A whole way out: SOCKS, policy, resolver, socket.
func TestWebThroughTheService(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(rw, "%s %d", r.Host, n)
	}))
	defer site.Close()
	at := netip.MustParseAddrPort(site.Listener.Addr().String())
	d := &Dialer{
		Policy:   Policy{Own: HostAddresses},
		Resolver: &names{hosts: map[string]string{"site.invalid": "127.0.0.1"}},
	}
	addr, _ := serve(t, d.DialContext)
	get := func() (string, error) {
		tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: addr})}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr, Timeout: patience}).Post(
			fmt.Sprintf("http://site.invalid:%d/", at.Port()), "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if got, err := get(); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("a site on loopback gives %q, %v", got, err)
	}
	d.Policy.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if got, err := get(); err != nil || got != fmt.Sprintf("site.invalid:%d %d", at.Port(), 1<<20) {
		t.Errorf("with loopback allowed: %q, %v", got, err)
	}
}

// Greeting, request and first data in one write; then both directions close by
// halves.
func TestPipelined(t *testing.T) {
	for _, size := range []int{0, 5, 200_000} {
		ln := tcp(t)
		defer ln.Close()
		addr, _ := serve(t, func(ctx context.Context, network, address string) (net.Conn, error) {
			if network != "tcp" || address != "example.invalid:80" {
				t.Errorf("dial %s %s", network, address)
			}
			return net.Dial("tcp", ln.Addr().String())
		})
		c := connect(t, addr)
		early := strings.Repeat("e", size)
		_, _ = c.Write(append(request(1, "example.invalid", 80), early...))
		_ = c.CloseWrite()
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(far); string(b) != early || err != nil {
			t.Errorf("the target reads %d bytes, %v, want %d", len(b), err, size)
		}
		_, _ = io.WriteString(far, "answer")
		_ = far.Close()
		if got := readReply(t, c); got != 0 {
			t.Errorf("reply %d", got)
		}
		if b, err := io.ReadAll(c); string(b) != "answer" || err != nil {
			t.Errorf("the client reads %q, %v", b, err)
		}
	}
}

// A refusal arrives although first data is left unread.
func TestRefusals(t *testing.T) {
	var answer error
	addr, _ := serve(t, func(context.Context, string, string) (net.Conn, error) { return nil, answer })
	for _, tt := range []struct {
		cmd  byte
		err  error
		want byte
	}{
		{1, &DeniedError{}, 2},
		{1, fmt.Errorf("dial: %w", syscall.ECONNREFUSED), 5},
		{1, ErrHostUnreachable, 4},
		{1, errors.New("else"), 1},
		{2, nil, 7}, {3, nil, 7}, {9, nil, 7},
	} {
		answer = tt.err
		c := connect(t, addr)
		send := request(tt.cmd, "example.invalid", 80)
		if tt.cmd == 1 {
			send = append(send, make([]byte, 300_000)...)
		}
		_, _ = c.Write(send)
		if got := readReply(t, c); got != tt.want {
			t.Errorf("command %d, %v: reply %d, want %d", tt.cmd, tt.err, got, tt.want)
		}
		_ = c.CloseWrite()
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
			t.Errorf("command %d, %v: after the reply %x, %v", tt.cmd, tt.err, b, err)
		}
	}
}

func TestServiceEnds(t *testing.T) {
	ln := tcp(t)
	defer ln.Close()
	began := make(chan struct{})
	addr, end := serve(t, func(ctx context.Context, _, address string) (net.Conn, error) {
		if address == "slow.invalid:80" {
			close(began)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return net.Dial("tcp", ln.Addr().String())
	})
	var open []net.Conn
	for _, send := range []string{"", "\x05", "\x05\x01\x00", string(request(1, "quiet.invalid", 80)), string(request(1, "slow.invalid", 80))} {
		c := connect(t, addr)
		_, _ = io.WriteString(c, send)
		open = append(open, c)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	_ = far.SetDeadline(time.Now().Add(patience))
	<-began
	end()
	for i, c := range append(open, far) {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open", i)
		}
	}
}

// pipes is a listener for connections made with net.Pipe.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return noBind }

// A warm connection may wait as long as it likes; one that began may not.
func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := make(pipes)
		done := make(chan error)
		go func() {
			done <- ServeSOCKS(ln, func(context.Context, string, string) (net.Conn, error) { return nil, ErrRefused }, nil)
		}()
		c, far := net.Pipe()
		ln <- far
		time.Sleep(24 * time.Hour)
		go func() { _, _ = c.Write(request(1, "example.invalid", 80)) }()
		if got := readReply(t, c); got != 5 {
			t.Errorf("after a day the reply is %d, want 5", got)
		}
		_ = c.Close()

		c, far = net.Pipe()
		ln <- far
		began := time.Now()
		go func() { _, _ = c.Write(request(1, "example.invalid", 80)[:9]) }()
		_, _ = io.Copy(io.Discard, c)
		if got := time.Since(began); got != handshakeTimeout {
			t.Errorf("half a request lives for %v, want %v", got, handshakeTimeout)
		}
		close(ln)
		<-done
	})
}

// FuzzServeSOCKS is a client that sends anything.
func FuzzServeSOCKS(f *testing.F) {
	f.Add(append(request(1, "x.invalid", 80), "data"...))
	f.Add([]byte("\x05\x02\x00\x02\x05\x01\x00\x04 0123456789abcdef\x00\x50"))
	f.Add([]byte("\x05\x01\x00\x05\x03\x00\x01\x7f\x00\x00\x01\x00\x50"))
	f.Add([]byte("\x04\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &Dialer{
			Resolver: &names{hosts: map[string]string{"x.invalid": "192.0.2.1 127.0.0.1"}},
			Base: func(_ context.Context, _ string, addr netip.AddrPort) (net.Conn, error) {
				if addr.Addr().IsLoopback() || addr.Addr().IsPrivate() || addr.Port() == 0 {
					t.Errorf("dialed %v", addr)
				}
				c, far := net.Pipe()
				go func() { _, _ = io.Copy(far, far); _ = far.Close() }()
				return c, nil
			},
		}
		ln := make(pipes)
		done := make(chan error)
		go func() { done <- ServeSOCKS(ln, d.DialContext, nil) }()
		c, far := net.Pipe()
		ln <- far
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_, _ = c.Write(b)
		_ = c.Close()
		close(ln)
		<-done
	})
}
