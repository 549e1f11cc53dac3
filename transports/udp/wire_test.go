package udp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
	"github.com/godwit-net/godwit/transports/transporttest"
)

var address = netip.MustParseAddrPort("192.0.2.1:4500")

func one(data string) []transports.Packet {
	return []transports.Packet{{Kind: transports.KindESP, Data: []byte(data)}}
}

// TestWire: the bytes of RFC 3948, Section 2.
func TestWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		pc, err := n.ListenUDP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		client := transporttest.NewRecorder()
		c, err := New(Options{}).Dial(t.Context(), transports.Opening{
			Network: n, Remote: address, Handler: client,
			First: func(transports.Description) []transports.Packet {
				return []transports.Packet{{Kind: transports.KindIKE, Data: []byte("ike")}, {Kind: transports.KindESP, Data: []byte("esp!")}}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.(Keepaliver).Keepalive(); err != nil {
			t.Error(err)
		}
		var from netip.AddrPort
		for _, want := range []string{"\x00\x00\x00\x00ike", "esp!", "\xff"} {
			b := make([]byte, 100)
			var k int
			if k, from, err = pc.ReadFromUDPAddrPort(b); err != nil || string(b[:k]) != want {
				t.Errorf("sent %q, %v; want %q", b[:k], err, want)
			}
		}
		for _, b := range []string{"\xff", "", "\x00\x00\x00\x00", "\x00\x00\x00\x00IKE", "\x00\x00\x00"} {
			pc.WriteToUDPAddrPort([]byte(b), from)
		}
		ps := client.Packets(2)
		synctest.Wait()
		if len(ps) != 2 || ps[0].Kind != transports.KindIKE || string(ps[0].Data) != "IKE" || ps[1].Kind != transports.KindESP {
			t.Errorf("received %v", ps)
		}
	})
}

// inBubble plays a server.
func inBubble(t *testing.T, o Options, f func(t *testing.T, dial func() transports.Carrier, server *transporttest.Recorder)) {
	synctest.Test(t, func(t *testing.T) {
		n, server := transporttest.NewMemory(), transporttest.NewRecorder()
		l, err := o.Listen(n, address, server)
		if err != nil {
			t.Fatal(err)
		}
		defer serve(l)()
		f(t, func() transports.Carrier {
			c, err := New(o).Dial(t.Context(), transports.Opening{Network: n, Remote: address, Handler: transporttest.NewRecorder()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}, server)
	})
}

// TestSameCarrier: a remote address has one carrier for as long as somebody
// keeps it, though it was forgotten for others or for time.
func TestSameCarrier(t *testing.T) {
	inBubble(t, Options{MaxCarriers: 2}, func(t *testing.T, dial func() transports.Carrier, server *transporttest.Recorder) {
		a := dial()
		a.Send(one("a"))
		kept := server.Carrier()
		for range 3 {
			dial().Send(one("other"))
		}
		server.Take(4)
		runtime.GC()
		a.Send(one("a"))
		time.Sleep(time.Hour) // beyond Idle
		dial().Send(one("other"))
		server.Take(2)
		runtime.GC()
		a.Send(one("a"))
		server.Take(1)
		// The recorder knows carriers by identity: a's, and one for each other.
		if all := server.Carriers(5); len(all) != 5 || all[0] != kept {
			t.Errorf("%d carriers for five addresses", len(all))
		}
	})
}

func TestCloseForgets(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, dial func() transports.Carrier, server *transporttest.Recorder) {
		a := dial()
		a.Send(one("a"))
		first := server.Carrier()
		first.Close()
		synctest.Wait()
		a.Send(one("a"))
		if all := server.Carriers(2); all[1] == first {
			t.Error("a closed carrier received again")
		}
		if n := server.AfterEnd(); n != 0 {
			t.Errorf("%d packets after the end", n)
		}
	})
}

// TestKeepaliveMakesNoCarrier: who sends nothing else takes no memory.
func TestKeepaliveMakesNoCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		l, err := Listen(n, address, transporttest.NewRecorder())
		if err != nil {
			t.Fatal(err)
		}
		defer serve(l)()
		u, err := n.DialUDP(t.Context(), netip.Addr{}, address)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.Write([]byte{0xFF})
		synctest.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.cache.live) != 0 {
			t.Errorf("%d carriers", len(l.cache.live))
		}
	})
}

// TestCacheBounded: a flood of addresses leaves nothing behind but what the
// cache may hold.
func TestCacheBounded(t *testing.T) {
	const size, flood = 100, 20 * minSweep
	k := newCache(size, time.Minute)
	now := time.Unix(0, 0)
	for i := range flood {
		p := peer{remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 16), byte(i >> 8)}), uint16(i))}
		if k.get(p, now) != nil {
			t.Fatal("an address was known before")
		}
		k.add(&served{peer: p}, now)
		if i%minSweep == 0 {
			runtime.GC()
		}
	}
	if len(k.live) != size {
		t.Errorf("%d carriers, want %d", len(k.live), size)
	}
	if len(k.left) > 5*minSweep {
		t.Errorf("%d forgotten carriers are still noted", len(k.left))
	}
	n := 0
	for c := k.front; c != nil; c = c.next {
		n++
	}
	k.expire(now.Add(time.Hour))
	if n != size || len(k.live) != 0 || k.front != nil || k.back != nil {
		t.Errorf("%d in the list; after their time %d", n, len(k.live))
	}
}

// TestRefused: an ICMP answer that nobody listens ends the carrier.
func TestRefused(t *testing.T) {
	n := system.New()
	pc, err := n.ListenUDP(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := transports.AddrPort(pc.LocalAddr())
	pc.Close()
	client := transporttest.NewRecorder()
	c, err := New(Options{}).Dial(t.Context(), transports.Opening{
		Network: n, Remote: addr, Handler: client,
		First: func(transports.Description) []transports.Packet { return one("hello") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if ends := client.Ends(c); len(ends) != 1 || !fatal(ends[0]) || errors.Is(ends[0], net.ErrClosed) {
		t.Errorf("carrier ended with %v", ends)
	}
	if err := c.Send(one("again")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send after the end: %v", err)
	}
}

// refusing is a network whose datagrams are refused when they are sent.
type refusing struct{ transports.Network }

type refusingConn struct{ net.Conn }

func (refusingConn) Write([]byte) (int, error) { return 0, fatalErrnos[0] }

func (n refusing) DialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := n.Network.DialUDP(ctx, local, remote)
	return refusingConn{c}, err
}

// TestRefusedSend: the kernel may report the ICMP answer to the sender instead.
func TestRefusedSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := transporttest.NewRecorder()
		o := transports.Opening{Network: refusing{transporttest.NewMemory()}, Remote: address, Handler: client}
		c, err := New(Options{}).Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Send(one("x")); !errors.Is(err, fatalErrnos[0]) {
			t.Errorf("send: %v", err)
		}
		if ends := client.Ends(c); len(ends) != 1 || !errors.Is(ends[0], fatalErrnos[0]) {
			t.Errorf("carrier ended with %v", ends)
		}
		o.First = func(transports.Description) []transports.Packet { return one("x") }
		if _, err := New(Options{}).Dial(t.Context(), o); !errors.Is(err, fatalErrnos[0]) {
			t.Errorf("dial: %v", err)
		}
	})
}

func TestMTU(t *testing.T) {
	for _, c := range []struct {
		remote string
		wire   int
		want   int
	}{
		{"192.0.2.1", 0, defaultWireMTU - 28},
		{"2001:db8::1", 0, defaultWireMTU - 48},
		{"192.0.2.1", 1500, 1472},
		{"192.0.2.1", 1280, 1252},
	} {
		if got := (Options{WireMTU: c.wire}).withDefaults().mtu(netip.MustParseAddr(c.remote)); got != c.want {
			t.Errorf("MTU to %s with %d on the wire: %d, want %d", c.remote, c.wire, got, c.want)
		}
	}
}

// FuzzSplit: whatever the kernel and the network give, the packets are parts of
// it, in order.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00ike"), 0)
	f.Add([]byte("abcdabcdab"), 4)
	f.Add([]byte("\xff"), 1)
	f.Add([]byte("abc"), -1)
	f.Fuzz(func(t *testing.T, b []byte, segment int) {
		rest := b
		for _, p := range split(b, segment, nil) {
			if p.Kind != transports.KindESP && p.Kind != transports.KindIKE || len(p.Data) == 0 {
				t.Fatalf("packet %v", p)
			}
			i := bytes.Index(rest, p.Data)
			if i < 0 || segment > 0 && len(p.Data) > segment {
				t.Fatalf("packet %q of segment %d is not in %q", p.Data, segment, rest)
			}
			rest = rest[i+len(p.Data):]
		}
	})
}
