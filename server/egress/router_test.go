package egress

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

var (
	routed    = netip.MustParseAddr("10.143.0.9")
	itself    = netip.MustParseAddr("10.143.0.1")
	localhost = netip.MustParsePrefix("127.0.0.0/8")
)

// sent is what a router gave to a client.
type sent struct {
	from, to netip.AddrPort
	b        []byte
}

func newRouter(t *testing.T, resolver netip.AddrPort) (*Router, chan sent) {
	t.Helper()
	out := make(chan sent, 100)
	r := &Router{
		Policy:   Policy{Allow: []netip.Prefix{localhost}},
		Gateways: []netip.Addr{itself}, Resolver: resolver,
		SendUDP: func(from, to netip.AddrPort, b []byte) error {
			out <- sent{from, to, bytes.Clone(b)}
			return nil
		},
		SendICMP: func(from, to netip.Addr, b []byte) error {
			out <- sent{netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0), bytes.Clone(b)}
			return nil
		},
	}
	t.Cleanup(r.Close)
	return r, out
}

// udpPeer is a host that tells what it gets, and can answer.
func udpPeer(t *testing.T) (net.PacketConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func read(t *testing.T, c net.PacketConn, want string) net.Addr {
	t.Helper()
	b := make([]byte, 100)
	n, from, err := c.ReadFrom(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("got %q, %v, want %q", b[:n], err, want)
	}
	return from
}

// A client's port is one port outside, for all targets, and a stranger gets
// nothing in.
func TestRouterUDP(t *testing.T) {
	a, aAddr := udpPeer(t)
	b, bAddr := udpPeer(t)
	r, out := newRouter(t, bAddr)
	client := netip.AddrPortFrom(routed, 5000)
	r.UDP(client, aAddr, []byte("to a"))
	seen := read(t, a, "to a")
	r.UDP(client, netip.AddrPortFrom(itself, 53), []byte("a question"))
	if other := read(t, b, "a question"); other.String() != seen.String() {
		t.Errorf("one socket of the client comes from %v and %v", seen, other)
	}
	r.UDP(netip.AddrPortFrom(routed, 5001), aAddr, []byte("another"))
	if other := read(t, a, "another"); other.String() == seen.String() {
		t.Error("two sockets of the client come from one")
	}
	answer := func(c net.PacketConn, text string, from netip.AddrPort) {
		t.Helper()
		if _, err := c.WriteTo([]byte(text), seen); err != nil {
			t.Fatal(err)
		}
		if s := <-out; s.from != from || s.to != client || string(s.b) != text {
			t.Errorf("the client got %q from %v to %v", s.b, s.from, s.to)
		}
	}
	answer(b, "an answer", netip.AddrPortFrom(itself, 53))

	// What is denied goes nowhere, and makes no socket.
	r.UDP(netip.AddrPortFrom(routed, 5002), netip.MustParseAddrPort("169.254.169.254:80"), []byte("no"))
	r.mu.Lock()
	n := len(r.flows)
	r.mu.Unlock()
	if n != 2 {
		t.Errorf("%d flows", n)
	}
}

// Who has too many sockets loses the one that was idle longest.
func TestRouterEvicts(t *testing.T) {
	a, aAddr := udpPeer(t)
	r, _ := newRouter(t, netip.AddrPort{})
	first := netip.AddrPortFrom(routed, 1)
	r.UDP(first, aAddr, []byte("x"))
	seen := read(t, a, "x")
	for port := range uint16(maxFlowsOfOne) {
		r.UDP(netip.AddrPortFrom(routed, 1000+port), aAddr, []byte("y"))
		read(t, a, "y")
	}
	r.mu.Lock()
	n, counted := len(r.flows), r.of[routed]
	_, there := r.flows[flowKey{client: first}]
	r.mu.Unlock()
	if n != maxFlowsOfOne || counted != n || there {
		t.Errorf("%d flows, %d counted, the oldest is there: %v", n, counted, there)
	}
	r.UDP(first, aAddr, []byte("z"))
	if again := read(t, a, "z"); again.String() == seen.String() {
		t.Error("the socket of the oldest lived on")
	}
}

func TestRouterTCP(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	to := ln.Addr().(*net.TCPAddr).AddrPort()
	r, _ := newRouter(t, netip.AddrPort{})
	client := netip.AddrPortFrom(routed, 40000)
	near, far := net.Pipe()
	go r.TCP(client, to, func() (net.Conn, error) { return far, nil })
	if _, err := near.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(near, b); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	near.Close()
	ln.Close()

	// Refused by the target and by the policy: never accepted.
	for _, target := range []netip.AddrPort{to, netip.MustParseAddrPort("192.168.0.1:80"), netip.AddrPortFrom(itself, 80)} {
		r.TCP(client, target, func() (net.Conn, error) {
			t.Errorf("a connection to %v was accepted", target)
			return nil, errors.New("no")
		})
	}
	// Close ends connections that are open.
	ln, err = net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, far = net.Pipe()
	go r.TCP(client, ln.Addr().(*net.TCPAddr).AddrPort(), func() (net.Conn, error) { return far, nil })
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := near.Read(b); err == nil {
		t.Error("a connection outlived the router")
	}
	if !r.enterFails() {
		t.Error("a closed router takes connections")
	}
}

func (r *Router) enterFails() bool {
	if r.enter(routed) {
		r.leave(routed)
		return false
	}
	return true
}

// The gateway's own address answers pings, and nobody answers for what is denied.
func TestRouterEcho(t *testing.T) {
	r, out := newRouter(t, netip.AddrPort{})
	request := []byte{8, 0, 0, 0, 1, 2, 0, 3, 'h', 'i'}
	r.Echo(routed, itself, request)
	if s := <-out; s.from.Addr() != itself || s.to.Addr() != routed || s.b[0] != 0 || !bytes.Equal(s.b[4:], request[4:]) {
		t.Errorf("%+v", s)
	}
	r.Echo(routed, netip.MustParseAddr("169.254.1.1"), request)
	r.Echo(routed, itself, request[:7])
	select {
	case s := <-out:
		t.Errorf("an answer: %+v", s)
	default:
	}
}
