package portmux

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		in   string
		want kind
	}{
		{"", kindMore},
		{"I", kindMore}, {"IKETC", kindMore}, {"IKETCP", kindRaw}, {"IKETCP\x00\x00", kindRaw}, {"IKETCQ ", kindHTTP}, {"IKEtCP", kindHTTP},
		{"\x16", kindTLS}, {"\x16\x03\x01", kindTLS}, {"\x16\x02", kindTLS},
		{"G", kindHTTP}, {"OPTIONS * HTTP/1.1", kindHTTP}, {"SSH-2.0", kindHTTP}, {"\x00", kindHTTP}, {"\x80\x2e\x01", kindHTTP},
	} {
		if got := sniff([]byte(c.in)); got != c.want {
			t.Errorf("%q is %d, want %d", c.in, got, c.want)
		}
	}
}

var (
	address = netip.MustParseAddrPort("192.0.2.1:443")
	proxy   = netip.MustParseAddr("10.0.0.7")
)

// fewPending is less than the race detector's limit on goroutines asks for.
const fewPending = 64

// inBubble runs f with a mux that believes the proxy.
func inBubble(t *testing.T, f func(t *testing.T, m *Mux, connect func(from netip.Addr) net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		m := New(ln, Options{Trusted: func(a netip.Addr) bool { return a == proxy }, Pending: fewPending})
		done := make(chan struct{})
		go func() { defer close(done); m.Serve() }()
		defer func() { m.Close(); <-done }()
		f(t, m, func(from netip.Addr) net.Conn {
			conn, err := n.DialTCP(t.Context(), from, address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return conn
		})
	})
}

// TestIntroduction has the examples of the PROXY protocol's specification, sections
// 2.1 and 2.2, and what is wrong with others.
func TestIntroduction(t *testing.T) {
	const signature = "0d0a0d0a000d0a515549540a"
	v2 := func(s string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const itself = "10.0.0.7:"
	for _, c := range []struct{ name, in, source, destination string }{
		{"version 1, IPv4", "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324", "192.168.0.11:443"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", "[2001:db8::1]:56324", "[2001:db8::2]:443"},
		{"version 1, longest", "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", itself, address.String()},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", itself, address.String()},
		{"version 2, TCP over IPv4", v2(signature + "21 11 000c cb007101 c6336402 dc04 01bb"), "203.0.113.1:56324", "198.51.100.2:443"},
		{"version 2, TCP over IPv6", v2(signature + "21 21 0024 20010db8000000000000000000000001 20010db8000000000000000000000002 dc04 01bb"), "[2001:db8::1]:56324", "[2001:db8::2]:443"},
		{"version 2, IPv4 within IPv6", v2(signature + "21 21 0024 00000000000000000000ffffcb007101 00000000000000000000ffffc6336402 dc04 01bb"), "203.0.113.1:56324", "198.51.100.2:443"},
		{"version 2, with more behind the addresses", v2(signature + "21 11 0013 cb007101 c6336402 dc04 01bb 01 0004 61626364"), "203.0.113.1:56324", "198.51.100.2:443"},
		{"version 2, local", v2(signature + "20 00 0000"), itself, address.String()},
		{"version 2, local with addresses", v2(signature + "20 11 000c cb007101 c6336402 dc04 01bb"), itself, address.String()},
		{"none", "", itself, address.String()},

		{"version 1, no address", "PROXY TCP4 example.org 192.168.0.11 56324 443\r\n", "", ""},
		{"version 1, a port too large", "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n", "", ""},
		{"version 1, without an end", "PROXY TCP4 " + strings.Repeat("1", 200), "", ""},
		{"version 2, too short", v2(signature + "21 11 000b cb007101 c6336402 dc04 01"), "", ""},
		{"version 3", v2(signature + "31 11 000c cb007101 c6336402 dc04 01bb"), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, m *Mux, connect func(netip.Addr) net.Conn) {
				conn := connect(proxy)
				io.WriteString(conn, c.in+"IKETCP!")
				if c.source == "" {
					if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
						t.Errorf("answered with %q, %v", b, err)
					}
					return
				}
				got, err := m.Raw().Accept()
				if err != nil {
					t.Fatal(err)
				}
				// What is there does not wait for more.
				b := make([]byte, 64)
				if n, err := got.Read(b); err != nil || string(b[:n]) != "IKETCP!" {
					t.Errorf("read %q, %v", b[:n], err)
				}
				from, at := got.RemoteAddr().String(), got.LocalAddr().String()
				if from != c.source && !(c.source == itself && strings.HasPrefix(from, itself)) || at != c.destination {
					t.Errorf("from %s at %s", from, at)
				}
			})
		})
	}
}

// TestIntroductionNotTrusted: from anybody else it is what a web server gets to see.
func TestIntroductionNotTrusted(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Mux, connect func(netip.Addr) net.Conn) {
		const line = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
		conn := connect(netip.MustParseAddr("10.0.0.8"))
		io.WriteString(conn, line)
		got, err := m.HTTP().Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(line))
		if _, err := io.ReadFull(got, b); err != nil || string(b) != line || got.RemoteAddr().String() != conn.LocalAddr().String() {
			t.Errorf("read %q, %v from %s", b, err, got.RemoteAddr())
		}
	})
}

// FuzzVisit: whatever a visitor or a proxy sends, everything behind an introduction
// arrives, and a verdict never waits for more than a header.
func FuzzVisit(f *testing.F) {
	f.Add([]byte("IKETCP\x00\x05"))
	f.Add([]byte("\x16\x03\x01\x02"))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb\x16"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := New(nil, Options{Trusted: func(netip.Addr) bool { return true }})
		c := &Conn{Conn: &spoken{Reader: bytes.NewReader(b)}}
		if !m.introduce(c) {
			return
		}
		switch k, err := c.peek(); {
		case err != nil || k == kindMore:
			t.Fatalf("%q is undecided", b)
		case k == kindRaw && !strings.HasPrefix(string(c.seen), prefix), k == kindTLS && c.seen[0] != 0x16:
			t.Fatalf("%q is %d", b, k)
		}
		rest, err := io.ReadAll(c)
		if err != nil || !bytes.HasSuffix(b, rest) {
			t.Fatalf("of %q there is left %q, %v", b, rest, err)
		}
		if !c.source.IsValid() && !bytes.Equal(b, rest) && !bytes.HasPrefix(b, []byte("PROXY ")) && !bytes.HasPrefix(b, []byte("\r\n\r\n\x00\r\nQUIT\n")) {
			t.Fatalf("of %q there is left %q without an introduction", b, rest)
		}
	})
}

// spoken is a connection on which everything has been said.
type spoken struct {
	io.Reader
	net.Conn
}

func (s *spoken) Read(b []byte) (int, error) { return s.Reader.Read(b) }
func (*spoken) RemoteAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 1} }

// TestSilent: visitors who say nothing, or stop in the middle, reach the web server
// in time, which is not told to wait for them again, and keep nobody else out.
func TestSilent(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Mux, connect func(netip.Addr) net.Conn) {
		begin := time.Now()
		var silent []net.Conn
		for i := range fewPending + 10 {
			c := connect(netip.Addr{})
			if i == fewPending {
				synctest.Wait() // those who came first make room
			}
			io.WriteString(c, []string{"", "I", "IKETC"}[i%3])
			silent = append(silent, c)
		}
		synctest.Wait()
		for i := range 10 {
			if _, err := io.ReadAll(silent[i]); err != nil {
				t.Fatal(err)
			}
		}
		go io.WriteString(connect(netip.Addr{}), "GET / HTTP/1.1\r\n")
		if _, err := m.HTTP().Accept(); err != nil || time.Since(begin) != 0 {
			t.Errorf("a visitor waited for %v: %v", time.Since(begin), err)
		}
		for range fewPending - 1 { // the one with a request has made room for itself too
			c, err := m.HTTP().Accept()
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Since(begin); d != Patience {
				t.Fatalf("a silent visitor was handed over after %v", d)
			}
			c.SetReadDeadline(time.Now().Add(Patience))
			if b, err := io.ReadAll(c); err == nil || time.Since(begin) != Patience {
				t.Fatalf("read %q, %v after %v", b, err, time.Since(begin))
			}
			c.Close()
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
		m := New(&failing{ln, []error{few, few, few, broken}}, Options{})
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

		m = New(&failing{ln, []error{few, few, few, few, few, few, few, few, few, few, few, few, few}}, Options{})
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
		m := New(ln, Options{})
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
