package portmux

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func certificate(t testing.TB) (*tls.Config, [32]byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, sha256.Sum256(der)
}

// port serves TCP and WebSockets on one port.
func port(config *tls.Config, hash [32]byte, ln net.Listener, h transports.Handler) (stop func()) {
	m := New(ln, config)
	listeners := []transports.Listener{
		m,
		tcp.NewListener(m.Raw(), h),
		websocket.NewListener(m.HTTP(), websocket.ListenerOptions{Handler: h, CertHash: hash}),
	}
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { l.Serve() })
	}
	return func() {
		for _, l := range listeners {
			l.Close()
		}
		wg.Wait()
	}
}

// TestSuites: each encapsulation passes the whole suite through the one port.
func TestSuites(t *testing.T) {
	config, hash := certificate(t)
	for name, tr := range map[string]transports.Transport{
		"tcp":   tcp.New(),
		"plain": websocket.New(websocket.Options{}),
		"tls":   websocket.New(websocket.Options{TLS: true, CertHash: hash}),
	} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, transporttest.Suite{
				Transport: tr,
				Stream:    true,
				Serve: func(t testing.TB, n transports.Network, local netip.AddrPort, h transports.Handler) (netip.AddrPort, func()) {
					ln, err := n.ListenTCP(t.Context(), local)
					if err != nil {
						t.Fatal(err)
					}
					return transports.AddrPort(ln.Addr()), port(config, hash, ln, h)
				},
			})
		})
	}
}

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		in   string
		want kind
	}{
		{"", kindMore},
		{"I", kindMore}, {"IKETC", kindMore}, {"IKETCP", kindRaw}, {"IKETCP\x00\x00", kindRaw}, {"IKETCQ ", kindHTTP}, {"IKEtCP", kindNone},
		{"\x16", kindMore}, {"\x16\x03", kindTLS}, {"\x16\x03\x01", kindTLS}, {"\x16\x02", kindNone},
		{"G", kindMore}, {"GET", kindMore}, {"GET ", kindHTTP}, {"OPTIONS * HTTP/1.1", kindHTTP},
		{"get ", kindNone}, {" ", kindNone}, {"SSH-2.0", kindNone}, {"\x00", kindNone}, {"\xff\xff\xff\xff", kindNone},
		{"ABCDEFGHIJKLMNOP", kindMore}, {"ABCDEFGHIJKLMNOP ", kindHTTP}, {"ABCDEFGHIJKLMNOPQ", kindNone},
	} {
		if got := sniff([]byte(c.in)); got != c.want {
			t.Errorf("%q is %d, want %d", c.in, got, c.want)
		}
	}
}

// FuzzSniff: a verdict comes in time and never changes with what follows.
func FuzzSniff(f *testing.F) {
	f.Add([]byte("IKETCP\x00\x05"))
	f.Add([]byte("\x16\x03\x01\x02"))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		verdict := kindMore
		for n := range len(b) + 1 {
			k := sniff(b[:n])
			if verdict != kindMore && k != verdict {
				t.Fatalf("%q is %d, and %d with %d bytes", b, verdict, k, n)
			}
			if verdict = k; k == kindMore && n > maxMethod {
				t.Fatalf("%q: no verdict after %d bytes", b, n)
			}
		}
	})
}

var address = netip.MustParseAddrPort("192.0.2.1:443")

// inBubble runs f against a mux that serves both sides.
func inBubble(t *testing.T, f func(t *testing.T, connect func() net.Conn)) {
	config, hash := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer port(config, hash, ln, transporttest.NewRecorder())()
		f(t, func() net.Conn {
			conn, err := n.DialTCP(t.Context(), netip.Addr{}, address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return conn
		})
	})
}

func get(conn net.Conn) error {
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// TestSilent: visitors who say nothing, or stop in the middle, are closed in
// time, and keep nobody else out, however many they are.
func TestSilent(t *testing.T) {
	inBubble(t, func(t *testing.T, connect func() net.Conn) {
		begin := time.Now()
		var silent []net.Conn
		for i := range maxPending + 10 {
			c := connect()
			if i == maxPending {
				// Those who came first make room.
				synctest.Wait()
			}
			io.WriteString(c, []string{"", "GE", "\x16", "\x16\x03\x01\x00\x05", "IKETC"}[i%5])
			silent = append(silent, c)
		}
		synctest.Wait()
		if err := get(connect()); err != nil {
			t.Errorf("a visitor was kept out: %v", err)
		}
		for i := range 10 {
			if _, err := io.ReadAll(silent[i]); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(begin) != 0 {
			t.Errorf("a visitor waited, or an old one did not make room, for %v", time.Since(begin))
		}
		for _, c := range silent {
			if _, err := io.ReadAll(c); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(begin); d != patience {
			t.Errorf("silent visitors were closed after %v", d)
		}
	})
}

func TestUnknownIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, connect func() net.Conn) {
		for _, s := range []string{"SSH-2.0-x\r\n", "\x16\x02", "\x16\x03\x01\x00\x02\x01\x00"} {
			c := connect()
			begin := time.Now()
			io.WriteString(c, s)
			io.ReadAll(c)
			if d := time.Since(begin); d > patience || s[0] == 'S' && d != 0 {
				t.Errorf("%q was kept for %v", s, d)
			}
		}
	})
}

// TestVisitorsPage: a browser sees a page over TLS too.
func TestVisitorsPage(t *testing.T) {
	inBubble(t, func(t *testing.T, connect func() net.Conn) {
		if err := get(tls.Client(connect(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})); err == nil {
			return
		} else {
			t.Error(err)
		}
	})
}

// failing is a listener that fails a few times before it works.
type failing struct {
	net.Listener
	errs []error
}

type passing struct{ error }

func (passing) Temporary() bool { return true }

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, err
	}
	return f.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		few := passing{errors.New("too many open files")}
		m := New(&failing{ln, []error{few, few, few, broken}}, nil)
		begin := time.Now()
		if err := m.Serve(); !errors.Is(err, broken) {
			t.Errorf("Serve: %v", err)
		}
		if d := time.Since(begin); d != 35*time.Millisecond {
			t.Errorf("waited for %v", d)
		}
		if _, err := m.Raw().Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after the end: %v", err)
		}

		m = New(&failing{ln, []error{few, few, few, few, few, few, few, few, few, few, few, few, few}}, nil)
		done := make(chan error)
		go func() { done <- m.Serve() }()
		synctest.Wait()
		m.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// TestSideClosed: when nobody takes one kind, its visitors are closed and the
// others served.
func TestSideClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		m := New(ln, nil)
		done := make(chan error)
		go func() { done <- m.Serve() }()
		m.HTTP().Close()
		for _, s := range []string{"GET / HTTP/1.1\r\n", "\x16\x03\x01"} { // no TLS either
			c, _ := n.DialTCP(t.Context(), netip.Addr{}, address)
			io.WriteString(c, s)
			if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
				t.Errorf("%q was answered with %q, %v", s, b, err)
			}
			c.Close()
		}
		c, _ := n.DialTCP(t.Context(), netip.Addr{}, address)
		io.WriteString(c, "IKETCPx")
		s, err := m.Raw().Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // no deadline is left
		b := make([]byte, 7)
		if _, err := io.ReadFull(s, b); err != nil || string(b) != "IKETCPx" {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
		s.Close()
		m.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}
