package tunnel

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// A packet that was damaged before ESP took it in is dropped by a stack that
// verifies, and counted; one that does not verify takes it.
func TestVerifyChecksums(t *testing.T) {
	for _, verify := range []bool{false, true} {
		q := NewQueue(1 << 20)
		defer q.Close()
		s, err := New(Config{Addresses: []netip.Addr{addrB4}, MTU: InnerMTU, VerifyChecksums: verify,
			Output: func(p Packet) {
				if !q.Put(p) {
					p.Release()
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		c, err := s.ListenUDP(netip.AddrPortFrom(addrB4, 53))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		datagram := func(payload byte, sum uint16) []byte {
			b := []byte{0x45, 0, 0, 29, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, 0, 53, 0, 53, 0, 9, 0, 0, payload}
			completeIPv4(b[:20])
			binary.BigEndian.PutUint16(b[26:], sum)
			return b
		}
		// No checksum at all (zero) is allowed over IPv4: RFC 768.
		s.Input([][]byte{datagram('x', 1), datagram('y', 0)})
		b := make([]byte, 10)
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		want := "x"
		if verify {
			want = "y"
		}
		if string(b[:n]) != want {
			t.Errorf("verify %v: the first datagram is %q, want %q", verify, b[:n], want)
		}
		if m := s.Stats().Malformed; verify != (m == 1) {
			t.Errorf("verify %v: %d packets counted as malformed", verify, m)
		}
	}
}
