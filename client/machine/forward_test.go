package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/things-go/go-socks5/statute"

	"github.com/godwit-net/godwit/tunnel"
)

// A fakeTunnel is what the client is to a machine: streams to an echo, and
// datagrams that come back from where they went to.
type fakeTunnel struct {
	mu     sync.Mutex
	dialed []string
	asked  []string // targets of datagrams
	open   int      // associations
}

func (f *fakeTunnel) dial(_ context.Context, _, address string) (net.Conn, error) {
	f.mu.Lock()
	f.dialed = append(f.dialed, address)
	f.mu.Unlock()
	if _, port, _ := net.SplitHostPort(address); port == "9" {
		return nil, syscall.ECONNREFUSED
	}
	a, b := net.Pipe()
	go func() { _, _ = io.Copy(b, b); _ = b.Close() }()
	return a, nil
}

func (f *fakeTunnel) associate(context.Context) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	a, b := net.Pipe()
	go func() {
		defer b.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := b.Read(buf)
			if err != nil {
				f.mu.Lock()
				f.open--
				f.mu.Unlock()
				return
			}
			if d, err := statute.ParseDatagram(buf[:n]); err == nil {
				f.mu.Lock()
				f.asked = append(f.asked, d.DstAddr.String())
				f.mu.Unlock()
				if len(d.Data) > 2 {
					d.Data[2] |= 0x80 // as an answer
				}
			}
			if _, err := b.Write(buf[:n]); err != nil {
				continue
			}
		}
	}()
	// A socket for datagrams says ErrClosed when it is, which a pipe does not.
	return datagramConn{a}, nil
}

type datagramConn struct{ net.Conn }

func (c datagramConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.ErrClosedPipe) {
		err = net.ErrClosed
	}
	return n, err
}

// A testMachine is a forwarder between a stack that plays the machine and a fake
// tunnel.
type testMachine struct {
	*tunnel.Stack // the machine's
	far           *fakeTunnel
	f             *forwarder
}

func newTestMachine(t *testing.T, s Settings) *testMachine {
	t.Helper()
	m := &testMachine{far: &fakeTunnel{}}
	c := Config{
		Settings: s, File: filepath.Join(t.TempDir(), "machine.json"),
		Dial: m.far.dial, Associate: m.far.associate, Logger: slog.New(slog.DiscardHandler),
		Gateway: func(context.Context) (netip.Addr, error) { return netip.MustParseAddr("10.143.0.1"), nil },
	}
	if err := c.defaults(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.f = newForwarder(ctx, c)
	up, down := tunnel.NewQueue(1<<24), tunnel.NewQueue(1<<24)
	var pumps sync.WaitGroup
	pump := func(q *tunnel.Queue, to func() *tunnel.Stack) {
		pumps.Go(func() {
			ps := make([]tunnel.Packet, 8)
			for {
				n, err := q.Take(ps)
				if err != nil {
					return
				}
				for _, p := range ps[:n] {
					to().Input([][]byte{p.AppendTo(nil)})
					p.Release()
				}
			}
		})
	}
	put := func(q *tunnel.Queue) func(tunnel.Packet) {
		return func(p tunnel.Packet) {
			if !q.Put(p) {
				p.Release()
			}
		}
	}
	stack, err := newStack(c, m.f, put(down))
	if err != nil {
		t.Fatal(err)
	}
	m.f.stack = stack
	m.Stack, err = tunnel.New(tunnel.Config{Addresses: []netip.Addr{Near4, Near6}, MTU: c.MTU, Output: put(up)})
	if err != nil {
		t.Fatal(err)
	}
	pump(up, func() *tunnel.Stack { return stack })
	pump(down, func() *tunnel.Stack { return m.Stack })
	t.Cleanup(func() {
		cancel()
		m.Stack.Close()
		stack.Close()
		m.f.close()
		up.Close()
		down.Close()
		pumps.Wait()
	})
	return m
}

func (m *testMachine) wantDialed(t *testing.T, want string) {
	t.Helper()
	m.far.mu.Lock()
	defer m.far.mu.Unlock()
	if n := len(m.far.dialed); n == 0 || m.far.dialed[n-1] != want {
		t.Errorf("dialed %v, want %s", m.far.dialed, want)
	}
}

func TestStreams(t *testing.T) {
	m := newTestMachine(t, Settings{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, to := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
		c, err := m.DialTCP(ctx, netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("x"), 300_000)
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %v", to, err)
		}
		m.wantDialed(t, to)
		c.Close()
	}
	if c, err := m.DialTCP(ctx, netip.MustParseAddrPort("192.0.2.1:9")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a refusal is %v, %v", c, err)
	}
	// Questions over TCP go to the server, if they are for the far end or for one
	// who answers in the local network only.
	for to, want := range map[string]string{
		Far4.String() + ":53": "10.143.0.1:53", "192.168.1.1:53": "10.143.0.1:53", "9.9.9.9:53": "9.9.9.9:53",
	} {
		c, err := m.DialTCP(ctx, netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		m.wantDialed(t, want)
	}
	if c, err := m.DialTCP(ctx, netip.AddrPortFrom(Far4, 80)); err == nil {
		t.Errorf("the far end itself serves %v", c.RemoteAddr())
	}
}

// exchange sends a datagram until an answer comes.
func exchange(t *testing.T, c net.Conn, b []byte) []byte {
	t.Helper()
	got := make([]byte, 1<<16)
	for range 60 {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := c.Read(got); err == nil {
			return got[:n]
		}
	}
	t.Fatal("no answer")
	return nil
}

func TestDatagramFlows(t *testing.T) {
	m := newTestMachine(t, Settings{})
	sent := bytes.Repeat([]byte{0x87}, 3000)
	for _, to := range []string{"192.0.2.1:443", "[2001:db8::1]:443"} {
		c, err := m.DialUDP(netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got := exchange(t, c, sent); !bytes.Equal(got, sent) {
				t.Errorf("%s: %d bytes came back", to, len(got))
			}
		}
		c.Close()
	}
	m.far.mu.Lock()
	if m.far.open != 2 {
		t.Errorf("%d sockets in the tunnel for two of the machine", m.far.open)
	}
	m.far.mu.Unlock()
	// More sources than there is room for: others make room for the newest.
	for i := range maxFlows + 20 {
		m.f.udp(netip.AddrPortFrom(Near4, uint16(2000+i)), netip.MustParseAddrPort("192.0.2.1:1"), []byte("x"))
	}
	m.f.mu.Lock()
	n, newest := len(m.f.flows), m.f.flows[netip.AddrPortFrom(Near4, 2000+maxFlows+19)]
	m.f.mu.Unlock()
	if n > maxFlows || newest == nil {
		t.Errorf("%d flows, the newest is %v", n, newest)
	}
	for _, to := range []string{"224.0.0.251:5353", "255.255.255.255:68", "[ff02::fb]:5353", Far4.String() + ":1", "192.0.2.1:0"} {
		m.f.udp(netip.AddrPortFrom(Near4, 1), netip.MustParseAddrPort(to), []byte("x"))
	}
	if m.f.flow(netip.AddrPortFrom(Near4, 1)).queue == nil || len(m.f.flows[netip.AddrPortFrom(Near4, 1)].queue) > 0 {
		t.Error("a datagram to nobody is passed on")
	}
}

// Questions share one socket in the tunnel, and each program gets the answer to
// its own, from whom it asked.
func TestQuestions(t *testing.T) {
	m := newTestMachine(t, Settings{})
	for i, to := range []string{Far4.String() + ":53", "192.168.1.1:53", "[" + Far6.String() + "]:53", "[fe80::1]:53"} {
		c, err := m.DialUDP(netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		for k := range 2 {
			q := make([]byte, dnsHeader+5)
			binary.BigEndian.PutUint16(q, 0x4242) // all the same
			q[dnsHeader] = byte(i*2 + k)
			got := exchange(t, c, q)
			q[2] |= 0x80
			if !bytes.Equal(got, q) {
				t.Errorf("%s: the answer is %x, want %x", to, got, q)
			}
		}
		c.Close()
	}
	m.far.mu.Lock()
	defer m.far.mu.Unlock()
	if m.far.open != 1 {
		t.Errorf("%d sockets for questions", m.far.open)
	}
	for _, a := range m.far.asked {
		if a != "10.143.0.1:53" {
			t.Errorf("%s was asked", a)
		}
	}
}

// Where names are left alone, and where another server is named.
func TestQuestionsElsewhere(t *testing.T) {
	q := make([]byte, dnsHeader+5)
	for _, tt := range []struct {
		s    Settings
		want string
	}{
		{Settings{NoDNS: true}, "192.168.1.1:53"},
		{Settings{Resolver: netip.MustParseAddr("9.9.9.9")}, "9.9.9.9:53"},
	} {
		m := newTestMachine(t, tt.s)
		c, err := m.DialUDP(netip.MustParseAddrPort("192.168.1.1:53"))
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, bytes.Clone(q))
		c.Close()
		m.far.mu.Lock()
		if m.far.asked[0] != tt.want {
			t.Errorf("asked %v, want %s", m.far.asked, tt.want)
		}
		m.far.mu.Unlock()
	}
}

// FuzzDevice is a machine that sends anything.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 198, 18, 71, 1, 192, 0, 2, 1, 8, 0, 0xf7, 0xff, 0, 0, 0, 0})
	f.Add([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 71, 1, 198, 18, 71, 2, 9, 9, 0, 53, 0, 20, 0, 0, 39: 0})
	far := &fakeTunnel{}
	c := Config{Dial: far.dial, Associate: far.associate, Logger: slog.New(slog.DiscardHandler),
		Gateway: func(context.Context) (netip.Addr, error) { return Near4, nil }}
	if err := c.defaults(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithCancel(context.Background())
		fw := newForwarder(ctx, c)
		s, err := newStack(c, fw, func(p tunnel.Packet) { p.Release() })
		if err != nil {
			t.Fatal(err)
		}
		fw.stack = s
		s.Input([][]byte{b})
		cancel()
		s.Close()
		fw.close()
	})
}
