package egress

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/things-go/go-socks5/statute"
)

// fakeSocket is a PacketConn in memory.
type fakeSocket struct {
	net.PacketConn
	in     chan fakeDatagram
	out    chan fakeDatagram
	closed chan struct{}
	once   sync.Once
}

type fakeDatagram struct {
	at   netip.AddrPort
	data []byte
}

func newFakeSocket() *fakeSocket {
	return &fakeSocket{in: make(chan fakeDatagram, 100), out: make(chan fakeDatagram, 1000), closed: make(chan struct{})}
}

func (f *fakeSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-f.in:
		return copy(b, d.data), net.UDPAddrFromAddrPort(d.at), nil
	case <-f.closed:
		return 0, nil, net.ErrClosed
	}
}

func (f *fakeSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	f.out <- fakeDatagram{to.(*net.UDPAddr).AddrPort(), bytes.Clone(b)}
	return len(b), nil
}

func (f *fakeSocket) Close() error { f.once.Do(func() { close(f.closed) }); return nil }

// knownNames resolves what it knows.
type knownNames map[string]netip.Addr

func (n knownNames) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if host == "slow.example" {
		time.Sleep(time.Second)
	}
	if a, ok := n[host]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// A udpWorld is a service with one client and targets made of nothing.
type udpWorld struct {
	t       *testing.T
	inner   *fakeSocket
	mu      sync.Mutex
	sockets []*fakeSocket
	done    chan error
}

// testNames is the name server of a udpWorld.
var testNames = NameServer{Gateways: []netip.Addr{netip.MustParseAddr("10.77.0.1")}, Resolver: netip.MustParseAddrPort("127.0.0.53:53")}

func newUDPWorld(t *testing.T) *udpWorld {
	w := &udpWorld{t: t, inner: newFakeSocket(), done: make(chan error, 1)}
	d := &Datagrams{
		Names:    testNames,
		Resolver: knownNames{"dns.example": netip.MustParseAddr("192.0.2.53"), "slow.example": netip.MustParseAddr("192.0.2.54"), "inside.example": netip.MustParseAddr("127.0.0.1")},
		Listen: func(string) (net.PacketConn, error) {
			f := newFakeSocket()
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sockets = append(w.sockets, f)
			return f, nil
		},
	}
	go func() { w.done <- d.Serve(w.inner) }()
	return w
}

func (w *udpWorld) end() {
	_ = w.inner.Close()
	if err := <-w.done; !errors.Is(err, net.ErrClosed) {
		w.t.Errorf("Serve gives %v", err)
	}
	for _, s := range w.sockets {
		select {
		case <-s.closed:
		default:
			w.t.Error("a socket is left open")
		}
	}
}

// send has a client's socket send to target.
func (w *udpWorld) send(port uint16, target, data string) {
	d, err := statute.NewDatagram(target, []byte(data))
	if err != nil {
		w.t.Fatal(err)
	}
	w.raw(port, d.Bytes())
}

func (w *udpWorld) raw(port uint16, b []byte) {
	w.inner.in <- fakeDatagram{netip.AddrPortFrom(netip.MustParseAddr("10.77.0.2"), port), b}
	synctest.Wait()
}

// sent gives what left by socket i.
func (w *udpWorld) sent(i int) (out []fakeDatagram) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i >= len(w.sockets) {
		return nil
	}
	for {
		select {
		case d := <-w.sockets[i].out:
			out = append(out, d)
		default:
			return out
		}
	}
}

func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUDPWorld(t)
		defer w.end()
		w.send(5000, "192.0.2.1:443", "to an address")
		w.send(5000, "dns.example:53", "to a name")
		w.send(5000, "127.0.0.1:53", "to the server itself")
		w.send(5000, "inside.example:53", "to the server itself, by name")
		w.send(5000, "nowhere.example:53", "to nobody")
		w.send(5000, "192.0.2.1:0", "to no port")
		w.raw(5000, []byte{0, 0, 1, 1, 192, 0, 2, 1, 0, 53, 'f'}) // a fragment
		w.raw(5000, []byte{0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8})
		got := w.sent(0)
		if len(got) != 2 || got[0].at.String() != "192.0.2.1:443" || string(got[0].data) != "to an address" ||
			got[1].at.String() != "192.0.2.53:53" || string(got[1].data) != "to a name" {
			t.Fatalf("sent %v", got)
		}

		// Answers come back with where from; strangers are not let in, but
		// another port of a known address is.
		for _, from := range []string{"192.0.2.1:443", "192.0.2.99:443", "192.0.2.1:444"} {
			w.sockets[0].in <- fakeDatagram{netip.MustParseAddrPort(from), []byte("answer from " + from)}
		}
		synctest.Wait()
		var back []string
		for len(w.inner.out) > 0 {
			d := <-w.inner.out
			if d.at.String() != "10.77.0.2:5000" {
				t.Errorf("an answer went to %v", d.at)
			}
			r, err := statute.ParseDatagram(d.data)
			if err != nil {
				t.Fatal(err)
			}
			if want := "answer from " + r.DstAddr.String(); string(r.Data) != want {
				t.Errorf("%q from %v", r.Data, r.DstAddr.String())
			}
			back = append(back, r.DstAddr.String())
		}
		if len(back) != 2 || back[0] != "192.0.2.1:443" || back[1] != "192.0.2.1:444" {
			t.Errorf("answers from %v", back)
		}

		// Another socket of the client is another mapping.
		w.send(5001, "192.0.2.1:443", "other")
		if got := w.sent(1); len(got) != 1 {
			t.Errorf("the second mapping sent %v", got)
		}
	})
}

// What is asked of the server itself goes to its resolver, and the answer is the
// server's; the resolver is reached in no other way.
func TestNameServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUDPWorld(t)
		defer w.end()
		w.send(5000, "10.77.0.1:53", "question")
		w.send(5000, "10.77.0.1:54", "to no name server")
		w.send(5000, "127.0.0.53:53", "past the name server")
		if got := w.sent(0); len(got) != 1 || got[0].at != testNames.Resolver || string(got[0].data) != "question" {
			t.Fatalf("sent %v", got)
		}
		w.sockets[0].in <- fakeDatagram{testNames.Resolver, []byte("answer")}
		synctest.Wait()
		r, err := statute.ParseDatagram((<-w.inner.out).data)
		if err != nil || r.DstAddr.String() != "10.77.0.1:53" || string(r.Data) != "answer" {
			t.Errorf("answer %q from %v, %v", r.Data, r.DstAddr.String(), err)
		}
	})
	var dialed string
	dial := testNames.Dial(func(_ context.Context, _, address string) (net.Conn, error) {
		dialed = address
		return nil, ErrRefused
	})
	for _, address := range []string{"10.77.0.1:80", "name.example:53", "192.0.2.1:53"} {
		if _, err := dial(t.Context(), "tcp", address); !errors.Is(err, ErrRefused) || dialed != address {
			t.Errorf("%s leads to %s, %v", address, dialed, err)
		}
	}
	ln := tcp(t)
	defer ln.Close()
	n := testNames
	n.Resolver = netip.MustParseAddrPort(ln.Addr().String())
	c, err := n.Dial(nil)(t.Context(), "tcp", "10.77.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().String() != ln.Addr().String() {
		t.Errorf("a question over TCP goes to %v", c.RemoteAddr())
	}
}

// A burst waits for a name to be resolved, and what waits is bounded in number and
// in bytes.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUDPWorld(t)
		defer w.end()
		for _, tt := range []struct{ count, size, want int }{
			{200, 1200, 200},
			{2 * mappingQueue, 100, mappingQueue + 1}, // one is in hand
			{20, 60_000, mappingBytes/60_000 + 1},
		} {
			sockets := len(w.sockets)
			for range tt.count {
				w.send(uint16(5000+tt.count), "slow.example:443", string(make([]byte, tt.size)))
			}
			time.Sleep(2 * time.Second)
			if got := w.sent(sockets); len(got) != tt.want {
				t.Errorf("of %d datagrams of %d bytes %d went out, want %d", tt.count, tt.size, len(got), tt.want)
			}
		}
	})
}

func TestMappingsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUDPWorld(t)
		defer w.end()
		w.send(5000, "192.0.2.1:443", "x")
		// What comes in keeps it, too.
		for range 4 {
			time.Sleep(mappingIdle - time.Second)
			w.sockets[0].in <- fakeDatagram{netip.MustParseAddrPort("192.0.2.1:443"), []byte("x")}
			synctest.Wait()
		}
		select {
		case <-w.sockets[0].closed:
			t.Fatal("a mapping in use has ended")
		default:
		}
		time.Sleep(2 * mappingIdle)
		select {
		case <-w.sockets[0].closed:
		default:
			t.Error("an idle mapping has not ended")
		}
		w.send(5000, "192.0.2.1:443", "again")
		if got := w.sent(1); len(got) != 1 {
			t.Errorf("after the end: %v", got)
		}
	})
}

// One client cannot take all sockets: the one that was idle longest makes room.
func TestMappingsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUDPWorld(t)
		defer w.end()
		for i := range maxMappingsOfOne + 50 {
			w.send(uint16(1000+i), "192.0.2.1:443", "x")
			time.Sleep(time.Millisecond)
		}
		for i, f := range w.sockets {
			closed := false
			select {
			case <-f.closed:
				closed = true
			default:
			}
			if want := i < 50; closed != want {
				t.Errorf("socket %d is closed: %v, want %v", i, closed, want)
			}
		}
		if n := len(w.sockets); n != maxMappingsOfOne+50 {
			t.Errorf("%d sockets, want %d", n, maxMappingsOfOne+50)
		}
	})
}

func FuzzClientDatagram(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 192, 0, 2, 1, 0, 53, 'x'})
	f.Add([]byte{0, 0, 0, 3, 1, 'a', 0, 53, 'x', 'y'})
	f.Add([]byte{0, 0, 0, 4, 9: 1, 22: 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		inner, out := newFakeSocket(), newFakeSocket()
		d := &Datagrams{Resolver: knownNames{}, Listen: func(string) (net.PacketConn, error) { return out, nil }}
		done := make(chan error, 1)
		go func() { done <- d.Serve(inner) }()
		inner.in <- fakeDatagram{netip.MustParseAddrPort("10.77.0.2:1"), b}
		for len(inner.in) > 0 {
			time.Sleep(time.Microsecond)
		}
		_ = inner.Close()
		<-done
	})
}
