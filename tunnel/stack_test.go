package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// exchange sends n bytes each way at once, half-closes, and compares digests.
func exchange(t *testing.T, a, b net.Conn, n int64) {
	t.Helper()
	var all sync.WaitGroup
	send := func(c net.Conn, seed byte) {
		if _, err := io.CopyBuffer(struct{ io.Writer }{c}, stream(seed, n), make([]byte, 256<<10)); err != nil {
			t.Errorf("send: %v", err)
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
	}
	receive := func(c net.Conn, seed byte) {
		got, want := sha256.New(), sha256.New()
		m, err := io.CopyBuffer(got, struct{ io.Reader }{c}, make([]byte, 256<<10))
		if err != nil || m != n {
			t.Errorf("received %d of %d bytes: %v", m, n, err)
		}
		io.Copy(want, stream(seed, n))
		if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
			t.Error("the bytes differ")
		}
	}
	all.Go(func() { send(a, 1) })
	all.Go(func() { send(b, 2) })
	all.Go(func() { receive(a, 2) })
	all.Go(func() { receive(b, 1) })
	all.Wait()
	a.Close()
	b.Close()
}

func TestStreams(t *testing.T) {
	for _, tt := range []struct {
		name    string
		w       *wire
		at      netip.Addr
		bytes   int64
		largest int64 // at least so many bytes had the largest packet
	}{
		{"IPv4 whole", &wire{check: true}, addrB4, 64 << 20, wholeSegment + 52},
		{"IPv6 whole", &wire{check: true}, addrB6, 64 << 20, wholeSegment + 52},
		{"IPv4 cut", &wire{check: true, cut: true}, addrB4, 16 << 20, testMTU},
		{"IPv6 cut", &wire{check: true, cut: true}, addrB6, 16 << 20, testMTU},
		{"IPv4 cut at once", &wire{check: true, fused: true}, addrB4, 64 << 20, testMTU},
		{"IPv6 cut at once", &wire{check: true, fused: true}, addrB6, 64 << 20, testMTU},
		{"IPv4 with loss", &wire{cut: true, loss: 0.01}, addrB4, 1 << 20, testMTU},
		{"IPv6 with loss", &wire{fused: true, loss: 0.01}, addrB6, 1 << 20, testMTU},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.w
			connect(t, w)
			defer w.Close()
			a, b := w.dialed(t, tt.at)
			exchange(t, a, b, tt.bytes)
			got := w.largest.Load()
			if got < tt.largest || tt.largest == testMTU && got > testMTU {
				t.Errorf("the largest packet had %d bytes", got)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	w := &wire{cut: true}
	connect(t, w)
	defer w.Close()
	closed := netip.AddrPortFrom(addrB4, 81)

	if _, err := w.a.DialTCP(t.Context(), closed); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := w.a.DialTCP(t.Context(), netip.AddrPort{}); err == nil {
		t.Error("dialled no address")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.a.DialTCP(ctx, closed); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := w.a.DialTCP(ctx, netip.MustParseAddrPort("10.9.0.77:80")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no such host: %v", err)
	}

	l, err := w.b.ListenTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	if port == 0 {
		t.Error("the listener does not know its port")
	}
	if _, err := w.b.ListenTCP(netip.AddrPortFrom(addrB4, port)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("port in use: %v", err)
	}
	if _, err := w.b.ListenTCP(netip.AddrPortFrom(addrA4, 80)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("another's address: %v", err)
	}
	a, err := w.a.DialTCP(t.Context(), netip.AddrPortFrom(addrB4, port))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := b.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != addrA4 {
		t.Errorf("accepted from %v", got)
	}
	a.SetReadDeadline(time.Now())
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	a.SetReadDeadline(time.Time{})

	woken := make(chan error)
	go func() { _, err := a.Read(make([]byte, 1)); woken <- err }()
	a.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read during Close: %v", err)
	}
	if _, err := a.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close after Close: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer has closed: %v", err)
	}
	b.Close()

	go func() { _, err := l.Accept(); woken <- err }()
	l.Close()
	if err := <-woken; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept during Close: %v", err)
	}
}

// Close ends whatever waits in the stack; the leak check does the rest.
func TestClose(t *testing.T) {
	w := &wire{}
	connect(t, w)
	a, b := w.dialed(t, addrB6)
	l, err := w.a.ListenTCP(netip.AddrPortFrom(addrA4, 80))
	if err != nil {
		t.Fatal(err)
	}
	u, err := w.a.ListenUDP(netip.AddrPortFrom(addrA6, 53))
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan error)
	go func() { _, err := a.Read(make([]byte, 1)); woken <- err }()
	go func() { _, err := l.Accept(); woken <- err }()
	go func() { _, _, err := u.ReadFrom(make([]byte, 1)); woken <- err }()
	go func() {
		_, err := w.a.DialTCP(context.Background(), netip.MustParseAddrPort("10.9.0.77:80"))
		woken <- err
	}()
	go func() { // until the buffers are full
		var err error
		for err == nil {
			_, err = a.Write(make([]byte, 1<<20))
		}
		woken <- err
	}()
	w.a.Close()
	for range 5 {
		if err := <-woken; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := b.Read(make([]byte, 64<<20)); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer reads %v", err)
	}
	if _, err := w.a.DialTCP(t.Context(), netip.AddrPortFrom(addrB4, 80)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial: %v", err)
	}
	if _, err := w.a.ListenTCP(netip.AddrPortFrom(addrA4, 82)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listen: %v", err)
	}
	w.a.Input([][]byte{{0x45}})
	w.a.Close()
	w.Close()
}

// What a socket has sent may be kept, to be sent again after a move, for longer
// than its next datagram wants to wait.
func TestUDPGoesOnWhilePacketsAreKept(t *testing.T) {
	var kept []Packet
	s, err := New(Config{Addresses: []netip.Addr{addrA4}, MTU: testMTU, Output: func(p Packet) { kept = append(kept, p) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer func() {
		for _, p := range kept {
			p.Release()
		}
	}()
	c, err := s.DialUDP(netip.AddrPortFrom(addrB4, 443))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 5000 // 6 MB
	for i := range n {
		_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write(make([]byte, 1200)); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
	}
	if len(kept) != n {
		t.Errorf("%d packets of %d", len(kept), n)
	}
}

func TestUDP(t *testing.T) {
	w := &wire{check: true}
	connect(t, w)
	defer w.Close()
	for _, at := range []netip.Addr{addrB4, addrB6} {
		server, err := w.b.ListenUDP(netip.AddrPortFrom(at, 53))
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.a.DialUDP(netip.AddrPortFrom(at, 53))
		if err != nil {
			t.Fatal(err)
		}
		// The larger one is fragmented by the stack: each packet is within the MTU.
		for _, n := range []int{1, 5000} {
			want := bytes.Repeat([]byte{7}, n)
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 65535)
			n, from, err := server.ReadFrom(b)
			if err != nil || !bytes.Equal(b[:n], want) {
				t.Fatalf("got %d bytes, %v", n, err)
			}
			if _, err := server.WriteTo(b[:n], from); err != nil {
				t.Fatal(err)
			}
			if n, err = c.Read(b); err != nil || !bytes.Equal(b[:n], want) {
				t.Fatalf("got %d bytes back, %v", n, err)
			}
		}
		if _, err := server.WriteTo(nil, &net.TCPAddr{}); err == nil {
			t.Error("sent to a TCP address")
		}
		if _, err := server.WriteTo(nil, &net.UDPAddr{IP: net.IPv4(1, 2, 3, 4)}); at.Is6() && err == nil {
			t.Error("sent to IPv4 from IPv6")
		}
		c.Close()
		server.Close()
	}
	if n := w.largest.Load(); n > testMTU {
		t.Errorf("the largest packet had %d bytes", n)
	}
}

func TestAddresses(t *testing.T) {
	q := NewQueue(1 << 20)
	defer q.Close()
	s := newStack(t, q, addrA4)
	defer s.Close()
	for _, a := range []string{"0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "fe80::1%eth0", "10.9.0.1", "::ffff:10.9.0.1"} {
		if err := s.AddAddress(netip.MustParseAddr(a)); err == nil {
			t.Errorf("took %s", a)
		}
	}
	if err := s.AddAddress(addrA6); err != nil {
		t.Fatal(err)
	}
	ping := echoRequest(addrB6, addrA6)
	s.Input([][]byte{ping})
	ps := make([]Packet, 2)
	if n, err := q.Take(ps); n != 1 || err != nil || ps[0].Destination() != addrB6 {
		t.Fatalf("%d packets, %v, to %v; want the echo reply alone", n, err, ps[0].Destination())
	}
	ps[0].Release()
	if err := s.RemoveAddress(addrA6); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveAddress(addrA6); err == nil {
		t.Error("removed an address twice")
	}
	s.Input([][]byte{ping})
	if n := q.Bytes(); n != 0 {
		t.Errorf("%d bytes in answer to a ping to a removed address", n)
	}
}

func TestConfig(t *testing.T) {
	out := func(p Packet) { p.Release() }
	for name, c := range map[string]Config{
		"no address":        {MTU: 1360, Output: out},
		"no output":         {MTU: 1360, Addresses: []netip.Addr{addrA4}},
		"small MTU":         {MTU: 575, Output: out, Addresses: []netip.Addr{addrA4}},
		"large MTU":         {MTU: 65536, Output: out, Addresses: []netip.Addr{addrA4}},
		"small MTU of IPv6": {MTU: 1279, Output: out, Addresses: []netip.Addr{addrA4, addrA6}},
		"the zero address":  {MTU: 1360, Output: out, Addresses: []netip.Addr{{}}},
	} {
		if s, err := New(c); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// echoRequest is a ping by ICMPv6, RFC 4443, Section 4.1.
func echoRequest(from, to netip.Addr) []byte {
	b := []byte{0x60, 0, 0, 0, 0, 8, 58, 64}
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	b = append(b, 128, 0, 0, 0, 0, 1, 0, 1)
	sum := ^onesSum(append(append([]byte{0, 58, 0, 8}, b[8:40]...), b[40:]...))
	b[42], b[43] = byte(sum>>8), byte(sum)
	return b
}

// Whatever the link takes, packets are no larger than the smaller of the two
// stacks wants them, in both directions.
func TestSmallerMTU(t *testing.T) {
	const mtu, size = 1280, 1 << 20
	w := &wire{fused: true, check: true, mtuB: mtu}
	connect(t, w)
	defer w.Close()
	for _, at := range []netip.Addr{addrB4, addrB6} {
		a, b := w.dialed(t, at)
		var all sync.WaitGroup
		for _, c := range []net.Conn{a, b} {
			all.Go(func() { io.Copy(c, stream(1, size)) })
			all.Go(func() {
				if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		a.Close()
		b.Close()
	}
	if n := w.largest.Load(); n > mtu || n < mtu-maxSACK {
		t.Errorf("the largest packet had %d bytes", n)
	}
}
