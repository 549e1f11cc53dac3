package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/tunnel/portmsg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bench is a service on loopback, where 127.0.1.x is the client ux.
type bench struct {
	*Service
	t  *testing.T
	ln net.Listener
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	b := &bench{t: t, ln: ln, Service: New(Config{
		User: func(a netip.Addr) (string, bool) {
			b := a.As4()
			return fmt.Sprintf("u%d", b[3]), b[2] == 1
		},
		Allow: func(user, network string, at netip.AddrPort) bool { return at.Port() != 23 },
		ListenTCP: func(at netip.AddrPort) ([]net.Listener, error) {
			ln, err := net.Listen("tcp", at.String())
			return []net.Listener{ln}, err
		},
		ListenUDP: func(netip.AddrPort) ([]Socket, error) { return nil, errors.New("no UDP here") },
		DialTCP: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", to.String())
		},
	})}
	served := make(chan error, 1)
	go func() { served <- b.Serve(ln) }()
	t.Cleanup(func() {
		ln.Close()
		b.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return b
}

// client connects as client ux.
func (b *bench) client(x byte) net.Conn {
	b.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, x)}}
	c, err := d.Dial("tcp", b.ln.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

// ask asks for a port and gives what is answered.
func (b *bench) ask(c net.Conn, at netip.AddrPort, to uint16) portmsg.Status {
	b.t.Helper()
	m, err := portmsg.Append(nil, &portmsg.Request{ID: 7, Network: "tcp", At: at.Addr(), Port: at.Port(), To: to})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := c.Write(m); err != nil {
		b.t.Fatal(err)
	}
	r, err := portmsg.Read(c)
	if err != nil {
		b.t.Fatal(err)
	}
	reply := r.(*portmsg.Reply)
	if reply.ID != 7 || reply.Status != portmsg.OK && reply.Reason == "" {
		b.t.Errorf("%+v", reply)
	}
	return reply.Status
}

// free gives a port that nobody has, at an address that no program connects from
// by itself, so that nobody takes it meanwhile.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.7.7.7:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// target listens where a client would, and says who it is.
func target(t *testing.T, x byte, says string) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.1.%d:0", x))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, says)
			c.Close()
		}
	}()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

// says is what comes from a port; empty if it is closed.
func says(t *testing.T, at netip.AddrPort) string {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return ""
	}
	defer c.Close()
	b, _ := io.ReadAll(c)
	return string(b)
}

// until waits for something that is under way.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: never", what)
		}
	}
}

func TestPortsAndOwners(t *testing.T) {
	b := newBench(t)
	one, two := b.client(1), b.client(2)
	at := free(t)
	if s := b.ask(one, netip.AddrPortFrom(at.Addr(), 23), 1); s != portmsg.NotAllowed {
		t.Errorf("not allowed: %v", s)
	}
	if s := b.ask(one, at, target(t, 1, "first")); s != portmsg.OK {
		t.Fatalf("first: %v", s)
	}
	if got := says(t, at); got != "first" {
		t.Errorf("got %q", got)
	}
	if s := b.ask(two, at, 1); s != portmsg.InUse {
		t.Errorf("another client's: %v", s)
	}
	if s := b.ask(two, netip.MustParseAddrPort(b.ln.Addr().String()), 1); s != portmsg.InUse {
		t.Errorf("another program's: %v", s)
	}
	if s := b.ask(two, netip.MustParseAddrPort("192.0.2.1:80"), 1); s != portmsg.Failed {
		t.Errorf("another host's: %v", s)
	}
	// The same client asks anew, by another stream: the old one matters no more.
	again := b.client(1)
	if s := b.ask(again, at, target(t, 1, "again")); s != portmsg.OK {
		t.Errorf("anew: %v", s)
	}
	one.Close()
	until(t, "the first stream is forgotten", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.users["u1"].sessions) == 1
	})
	if got := says(t, at); got != "again" {
		t.Errorf("got %q", got)
	}
	// Without its stream the port is free for others.
	again.Close()
	until(t, "the port is closed", func() bool { return says(t, at) == "" })
	if s := b.ask(two, at, target(t, 2, "second")); s != portmsg.OK {
		t.Errorf("given back: %v", s)
	}
	b.Release("u2", true)
	until(t, "the port of a client that is gone is closed", func() bool { return says(t, at) == "" })
	if _, err := portmsg.Read(two); err == nil {
		t.Error("it is not told")
	}
}

func TestBounds(t *testing.T) {
	b := newBench(t)
	c := b.client(1)
	for range maxPorts {
		if s := b.ask(c, free(t), 1); s != portmsg.OK {
			t.Fatal(s)
		}
	}
	if s := b.ask(c, free(t), 1); s != portmsg.TooMany {
		t.Errorf("one more: %v", s)
	}
	for range maxSessions - 1 {
		b.ask(b.client(1), netip.MustParseAddrPort("127.0.0.1:23"), 1)
	}
	if n, err := b.client(1).Read(make([]byte, 1)); err == nil {
		t.Errorf("one more session: %d bytes", n)
	}
	// Who is no client is not heard, nor who speaks nonsense.
	stranger, err := net.Dial("tcp", b.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if n, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Errorf("a stranger gets %d bytes", n)
	}
	d := b.client(3)
	if _, err := io.Copy(d, strings.NewReader("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Read(make([]byte, 1)); err == nil {
		t.Errorf("nonsense is answered with %d bytes", n)
	}
}
