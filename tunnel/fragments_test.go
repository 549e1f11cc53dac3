package tunnel

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// fragmentsOf has a stack send a datagram to addrB4 or addrB6 in two fragments.
func fragmentsOf(t *testing.T, from, to netip.Addr, payload []byte) [][]byte {
	t.Helper()
	var out [][]byte
	s, err := New(Config{Addresses: []netip.Addr{from}, MTU: testMTU, Output: func(p Packet) { out = append(out, p.AppendTo(nil)); p.Release() }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.ListenUDP(netip.AddrPortFrom(from, 1000))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo(payload, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 2000))); err != nil {
		t.Fatal(err)
	}
	if len(out) != 2 {
		t.Fatalf("%d packets, want two fragments", len(out))
	}
	return out
}

// datagrams gives a stack with an address, and what reads a datagram sent to it.
func datagrams(t *testing.T, at netip.Addr) (*Stack, func() []byte) {
	t.Helper()
	s, err := New(Config{Addresses: []netip.Addr{at}, MTU: testMTU, Output: Packet.Release})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := s.ListenUDP(netip.AddrPortFrom(at, 2000))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, func() []byte {
		t.Helper()
		b := make([]byte, 3000)
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
}

// A piece of a datagram that got lost does no harm to those that follow.
func TestFragmentLost(t *testing.T) {
	for _, family := range [][2]netip.Addr{{addrA4, addrB4}, {addrA6, addrB6}} {
		receiver, read := datagrams(t, family[1])
		for i := range 5 {
			want := bytes.Repeat([]byte{byte(i)}, 2000)
			b := fragmentsOf(t, family[0], family[1], want)
			if i%2 == 0 {
				receiver.Input(b[1:]) // its first part is lost
				continue
			}
			receiver.Input(b)
			if got := read(); !bytes.Equal(got, want) {
				t.Fatalf("%v: datagram %d: %d bytes that begin with %x, want %d of %d", family[1], i, len(got), got[:1], len(want), i)
			}
		}
	}
}

// Pieces of two datagrams that were given the same Identification make no
// datagram: RFC 4963, Section 4.
func TestFragmentsOfTwo(t *testing.T) {
	for _, family := range [][2]netip.Addr{{addrA4, addrB4}, {addrA6, addrB6}} {
		receiver, read := datagrams(t, family[1])
		one := fragmentsOf(t, family[0], family[1], bytes.Repeat([]byte{1}, 2000))
		two := fragmentsOf(t, family[0], family[1], bytes.Repeat([]byte{2}, 2000))
		if family[0].Is4() {
			copy(two[1][4:6], one[1][4:6])
			completeIPv4(two[1][:ipv4Header])
		} else {
			if one[1][ipv6NextHeader] != byte(header.IPv6FragmentHeader) {
				t.Fatal("no fragment")
			}
			copy(two[1][ipv6Header+4:][:4], one[1][ipv6Header+4:])
		}
		receiver.Input([][]byte{one[0], two[1]})
		receiver.Input(fragmentsOf(t, family[0], family[1], bytes.Repeat([]byte{3}, 2000)))
		if got := read(); got[0] != 3 {
			t.Errorf("%v: a datagram of pieces of two others arrived: %x…%x", family[1], got[:1], got[len(got)-1:])
		}
		if n := receiver.Stats().Malformed; n != 1 {
			t.Errorf("%v: %d packets counted as malformed, want 1", family[1], n)
		}
	}
}

// TestNarrow sends datagrams by a path that is narrower than the stack knows: they
// arrive whole, also those that the stack had fragmented itself, and in any order.
func TestNarrow(t *testing.T) {
	for _, c := range []struct{ from, to netip.Addr }{{addrA4, addrB4}, {addrA6, addrB6}} {
		var out []Packet
		s, err := New(Config{Addresses: []netip.Addr{c.from}, MTU: testMTU, Output: func(p Packet) { out = append(out, p) }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		conn, err := s.ListenUDP(netip.AddrPortFrom(c.from, 1000))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		b, read := datagrams(t, c.to)
		for _, size := range []int{1100, 1300, 2000, 2900} {
			payload := make([]byte, size)
			for i := range payload {
				payload[i] = byte(i * i >> 3)
			}
			if _, err := conn.WriteTo(payload, net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.to, 2000))); err != nil {
				t.Fatal(err)
			}
			const narrow = 700
			var segs [][]byte
			for _, p := range out {
				_, cut, err := p.AppendCut(nil, narrow, nil)
				if err != nil {
					t.Fatalf("%d bytes to %v: %v", size, c.to, err)
				}
				_, again, _ := p.AppendCut(nil, narrow, nil)
				for i := range again {
					if !bytes.Equal(cut[i], again[i]) {
						t.Errorf("%d bytes to %v: the fragments differ the second time", size, c.to)
					}
				}
				segs = append(segs, cut...)
				p.Release()
			}
			out = nil
			for i := range segs {
				if pkt := segs[len(segs)-1-i]; len(pkt) > narrow {
					t.Errorf("a fragment of %d bytes", len(pkt))
				} else {
					b.Input([][]byte{pkt})
				}
			}
			if got := read(); !bytes.Equal(got, payload) {
				t.Errorf("%d bytes to %v: %d arrive, or others", size, c.to, len(got))
			}
		}
	}
}

func FuzzFragments(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0x45, 0}, 500), 600)
	f.Add(bytes.Repeat([]byte{0x60, 44}, 500), 600)
	f.Fuzz(func(t *testing.T, pkt []byte, mtu int) {
		mtu = min(max(mtu, 0), maxPacket)
		_, segs, err := fragments(pkt, mtu, nil, nil)
		if err != nil && len(segs) > 0 {
			t.Fatal("fragments with an error")
		}
		for _, s := range segs {
			if len(s) > mtu {
				t.Fatalf("a fragment of %d bytes where %d are the most", len(s), mtu)
			}
		}
	})
}
