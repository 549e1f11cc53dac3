package udp

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
	"github.com/godwit-net/godwit/transports/transporttest"
)

// TestReplyAddress: a server of all addresses knows which one was asked, and
// answers from it: a connected client takes nothing else.
func TestReplyAddress(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		server := transporttest.NewRecorder()
		l, err := Listen(system.New(), netip.MustParseAddrPort(listen), server)
		if err != nil {
			t.Fatal(err)
		}
		stop := serve(l)
		for i, host := range []string{"127.0.0.2", "127.0.0.1", "::1"} {
			client := transporttest.NewRecorder()
			remote := netip.AddrPortFrom(netip.MustParseAddr(host), l.Addr().Port())
			c, err := New(Options{}).Dial(t.Context(), transports.Opening{Network: system.New(), Remote: remote, Handler: client})
			if err != nil {
				t.Fatal(err)
			}
			c.Send(one("ask"))
			s := server.Carriers(i + 1)[i]
			if s.Describe() != c.Describe().Reverse() || s.Describe().Source != remote {
				t.Errorf("%s: server sees %+v, client %+v", host, s.Describe(), c.Describe())
			}
			// Both ways of sending: one datagram, and a run of them.
			ps := []transports.Packet{one("answer")[0], one("answers")[0], one("answers")[0], one("more")[0]}
			if err := s.Send(ps); err != nil {
				t.Errorf("answer from %s: %v", host, err)
			}
			if got := client.Packets(4); string(got[0].Data) != "answer" || string(got[3].Data) != "more" {
				t.Errorf("answers from %s: %v", host, got)
			}
			c.Close()
			client.Ends(c)
		}
		stop()
	}
}

// pair gives two sockets that face each other.
func pair(t *testing.T) (a, b *kernelSocket) {
	n := system.New()
	pc, err := n.ListenUDP(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := n.DialUDP(context.Background(), netip.Addr{}, transports.AddrPort(pc.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close(); conn.Close() })
	return wrapConn(conn, true).(*kernelSocket), wrapPacketConn(pc, true).(*kernelSocket)
}

// TestJoins: where the kernel can, a run goes out and comes in at once; where
// it can't, each datagram goes on its own and nothing else changes.
func TestJoins(t *testing.T) {
	a, b := pair(t)
	var ps []transports.Packet
	for range 10 {
		ps = append(ps, one("0123456789")[0])
	}
	ps = append(ps, one("end")[0])
	reads := func() (calls int) {
		r := newReceiver()
		defer r.release()
		for have := 0; have < len(ps); calls++ {
			got, _, err := r.receive(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range got {
				if string(p.Data) != string(ps[have].Data) {
					t.Fatalf("packet %d is %q", have, p.Data)
				}
				have++
			}
		}
		return calls
	}
	can := a.joins()
	if err := sendAll(ps, 1472, a, peer{}); err != nil {
		t.Fatal(err)
	}
	if calls := reads(); can && calls != 1 {
		t.Errorf("a run came in %d reads", calls)
	}
	a.gso.Store(false)
	if err := sendAll(ps, 1472, a, peer{}); err != nil {
		t.Fatal(err)
	}
	if calls := reads(); calls != len(ps) {
		t.Errorf("%d datagrams came in %d reads", len(ps), calls)
	}
	var run []byte
	for _, p := range ps {
		run = append(run, p.Data...)
	}
	if err := a.writeEach(run, 10, nil, peer{}); err != nil {
		t.Fatal(err)
	}
	reads()
}

// TestLongRun: more than the kernel takes at once goes in as few calls as it can.
func TestLongRun(t *testing.T) {
	a, b := pair(t)
	for _, c := range []struct{ count, size, calls int }{{2 * maxRun, 100, 2}, {2 * (maxRunBytes / 1400), 1400, 2}} {
		ps := make([]transports.Packet, c.count)
		for i := range ps {
			ps[i] = transports.Packet{Kind: transports.KindESP, Data: transporttest.Payload(transports.KindESP, c.size, i)}
		}
		can := a.joins()
		if err := sendAll(ps, 1472, a, peer{}); err != nil {
			t.Fatal(err)
		}
		r := newReceiver()
		calls := 0
		for have := 0; have < len(ps); calls++ {
			got, _, err := r.receive(b)
			if err != nil {
				t.Fatal(err)
			}
			have += len(got)
		}
		r.release()
		if can && calls != c.calls {
			t.Errorf("%d packets of %d bytes came in %d reads, want %d", c.count, c.size, calls, c.calls)
		}
	}
}

// TestNoFragments: DF is set whatever the kernel believes of the path.
func TestNoFragments(t *testing.T) {
	a, _ := pair(t)
	raw, err := a.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER)
		if err != nil || v != unix.IP_PMTUDISC_PROBE {
			t.Errorf("IP_MTU_DISCOVER is %d, %v", v, err)
		}
	})
}

// TestNoAllocations: neither sending nor receiving allocates per packet.
func TestNoAllocations(t *testing.T) {
	a, b := pair(t)
	ps := make([]transports.Packet, 32)
	for i := range ps {
		ps[i] = transports.Packet{Kind: transports.Kind(1 + i/30), Data: make([]byte, 1400)}
		ps[i].Data[0] = 1
	}
	r := newReceiver()
	defer r.release()
	n := testing.AllocsPerRun(100, func() {
		if err := sendAll(ps, 1472, a, peer{}); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(ps); {
			in, from, err := r.receive(b)
			if err != nil {
				t.Fatal(err)
			}
			got += len(in)
			if err := b.write(keepalive, 1, from); err != nil {
				t.Fatal(err)
			}
		}
	})
	// The race detector has pools lose things, so this allows for a few.
	if n >= float64(len(ps))/4 {
		t.Errorf("%v allocations for %d packets", n, len(ps))
	}
}

// FuzzParseControl: what the kernel gives is trusted no more than the network.
func FuzzParseControl(f *testing.F) {
	var c control
	f.Add(append([]byte(nil), appendSource(c.buf[:0], netip.MustParseAddr("192.0.2.1"))...))
	f.Add(append([]byte(nil), appendSource(c.buf[:0], netip.MustParseAddr("2001:db8::1"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseControl(b)
	})
}

func TestControl(t *testing.T) {
	for _, s := range []string{"192.0.2.1", "2001:db8::1"} {
		var c control
		oob := appendSource(c.buf[:0], netip.MustParseAddr(s))
		// in_pktinfo's second field is the address in both directions.
		oob = appendControl(oob, unix.IPPROTO_UDP, unix.UDP_GRO, 4)
		binary.NativeEndian.PutUint32(oob[len(oob)-unix.CmsgSpace(4)+unix.CmsgLen(0):], 7)
		if segment, local := parseControl(oob); local != netip.MustParseAddr(s) || segment != 7 {
			t.Errorf("%s read as %s, segment %d", s, local, segment)
		}
	}
}

func TestAdjacent(t *testing.T) {
	buf := []byte("aaabbbcc")
	esp := func(b []byte) transports.Packet { return transports.Packet{Kind: transports.KindESP, Data: b} }
	a, b, c := esp(buf[:3]), esp(buf[3:6]), esp(buf[6:])
	other := esp([]byte("bbb"))
	ike := transports.Packet{Kind: transports.KindIKE, Data: buf[3:6]}
	for name, tt := range map[string]struct {
		ps   []transports.Packet
		want string
	}{
		"all":        {[]transports.Packet{a, b, c}, "aaabbbcc"},
		"one":        {[]transports.Packet{b}, "bbb"},
		"elsewhere":  {[]transports.Packet{a, other}, ""},
		"gap":        {[]transports.Packet{a, c}, ""},
		"wrong way":  {[]transports.Packet{b, a}, ""},
		"a marker":   {[]transports.Packet{a, ike}, ""},
		"no room":    {[]transports.Packet{esp(buf[:3:3]), b}, ""},
		"same twice": {[]transports.Packet{a, a}, ""},
	} {
		size := 0
		for _, p := range tt.ps {
			size += len(p.Data)
		}
		if got, ok := adjacent(tt.ps, size); string(got) != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: got %q, %v, want %q", name, got, ok, tt.want)
		}
	}
}
