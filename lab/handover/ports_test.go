//go:build virtualtime

package handover

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client/forward"
	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
)

// remote asks the server for ports, which lead to a host beside the client: the
// connections to it do not move.
func (m *mobile) remote(rules ...string) *forward.Remote {
	c := forward.RemoteConfig{
		Open:   func(ctx context.Context) (forward.Inside, error) { return m.client.Inside(ctx) },
		Logger: m.w.logger("forward"),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := netip.MustParseAddrPort(address)
			if network == "udp" {
				return m.w.target.DialUDP(ctx, netip.Addr{}, to)
			}
			return m.w.target.DialTCP(ctx, netip.Addr{}, to)
		},
	}
	for _, s := range rules {
		r, err := forward.ParseRemote(s)
		if err != nil {
			m.w.t.Fatal(err)
		}
		c.Rules = append(c.Rules, r)
	}
	return forward.StartRemote(c)
}

// TestPorts has a port of the server lead to the client, and moves the client
// while bytes flow both ways: none is lost, and the port takes new connections
// before, during and after.
func TestPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r, func(w *world) {
			w.allowPort = func(user, network string, at netip.AddrPort) bool {
				return user == "laptop" && at.Port() != 23
			}
		})
		defer w.close()
		outside, lan := w.in.AddHost("outside"), w.in.AddHost("lan")
		outside.Attach("eth0", w.in.Core(), lab.Addrs("192.0.2.20")...)
		lan.Attach("eth0", w.in.Core(), lab.Addrs("192.0.2.30")...)
		lanAddr := lan.Addresses()[0]
		m := w.join("laptop", 10)
		tcpAt, udpAt := netip.AddrPortFrom(lanAddr, 3000), netip.AddrPortFrom(lanAddr, 53)
		remote := m.remote("tcp 198.51.100.2:8080 "+tcpAt.String(), "udp 198.51.100.2:5353 "+udpAt.String(), "tcp inner:80 "+tcpAt.String(), "tcp 198.51.100.2:23 "+tcpAt.String())
		settle()

		ln, err := lan.ListenTCP(t.Context(), tcpAt)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		connect := func(what string, dial func() (net.Conn, error)) (near, far net.Conn) {
			t.Helper()
			near, err := dial()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if far, err = ln.Accept(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			return near, far
		}
		public := func() (net.Conn, error) {
			return outside.DialTCP(t.Context(), netip.Addr{}, netip.MustParseAddrPort("198.51.100.2:8080"))
		}
		a, b := connect("a public port", public)
		in := newFlow(t, "in", a, b, pace{size: 1000, every: r / 5})
		out := newFlow(t, "out", b, a, pace{size: 1000, every: r / 5})
		time.Sleep(time.Second)

		moved := time.Now()
		m.host.Detach("if0")
		m.host.Attach("if0", w.cell)
		// The port is there in the midst of it.
		c, d := connect("a public port, moving", public)
		c.Close()
		d.Close()
		settle()
		if s := m.client.Status(); s.Path == nil || s.Path.Verdict != "napt" {
			t.Errorf("after the move: %+v", s.Path)
		}
		for name, f := range map[string]*flow{"in": in, "out": out} {
			if f.between(moved.Add(time.Second), time.Now()) == 0 {
				t.Errorf("nothing comes %s after the move", name)
			}
			f.end()
		}
		// An inner port is reached by way of the tunnel.
		e, f := connect("an inner port", func() (net.Conn, error) { return m.client.Dial(t.Context(), "tcp", "10.77.0.1:80") })
		e.Close()
		f.Close()
		// What is not allowed is not open.
		if c, err := outside.DialTCP(t.Context(), netip.Addr{}, netip.MustParseAddrPort("198.51.100.2:23")); err == nil {
			c.Close()
			t.Error("a port that is not allowed is open")
		}
		wantEcho(t, outside, lan, "198.51.100.2:5353", udpAt)

		// The client gives them back.
		remote.Close()
		settle()
		if c, err := public(); err == nil {
			c.Close()
			t.Error("a port that was given back is open")
		}
	})
}

// wantEcho sends datagrams to at until lan, where they shall end up at port to,
// has sent one back.
func wantEcho(t *testing.T, outside, lan transports.Network, at string, to netip.AddrPort) {
	t.Helper()
	pc, err := lan.ListenUDP(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteToUDPAddrPort([]byte(strings.ToUpper(string(b[:n]))), from)
		}
	}()
	defer pc.Close()
	c, err := outside.DialUDP(t.Context(), netip.Addr{}, netip.MustParseAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 2000)
	for range 5 {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(b); err == nil {
			if string(b[:n]) != "HELLO" {
				t.Errorf("got %q", b[:n])
			}
			return
		}
	}
	t.Error("no datagram comes back")
}

// TestPortsComeBack: a client that lost its server has its ports at the next
// one, and one that is removed has none.
func TestPortsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 50*time.Millisecond, func(w *world) {
			w.allowPort = func(string, string, netip.AddrPort) bool { return true }
			w.ended = make(chan error, 2) // removed clients end with an error
		})
		defer w.close()
		m := w.join("laptop", 10)
		other := w.join("other", 11)
		defer m.remote("tcp 198.51.100.2:8080 192.0.2.10:7").Close()
		settle()
		// Somebody else has it; it is asked for again while that lasts.
		second := other.remote("tcp 198.51.100.2:8080 192.0.2.10:8")
		defer second.Close()
		open := func() bool {
			c, err := w.target.DialTCP(t.Context(), netip.Addr{}, netip.MustParseAddrPort("198.51.100.2:8080"))
			if err == nil {
				c.Close()
			}
			return err == nil
		}
		if !open() {
			t.Error("the port is not open")
		}
		w.stopServer()
		w.serve()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if !open() {
			t.Error("the port did not come back with the server")
		}
		w.mu.Lock()
		clear(w.users)
		w.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if open() {
			t.Error("a removed client has a port")
		}
	})
}
