package netns

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	someClient = netip.MustParseAddrPort("203.0.113.2:40000")
	someServer = netip.MustParseAddrPort("198.51.100.2:443")
)

// udpPacket and tcpPacket make IP packets; checksums stay zero, as the
// dissector does not look at them.
func udpPacket(from, to netip.AddrPort, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = binary.BigEndian.AppendUint16(b, 0)
	return ipPacket(from, to, 17, append(b, payload...))
}

func tcpPacket(from, to netip.AddrPort, seq uint32, flags byte, payload []byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	b[12], b[13] = 5<<4, flags
	return ipPacket(from, to, 6, append(b, payload...))
}

func ipPacket(from, to netip.AddrPort, protocol byte, body []byte) []byte {
	if from.Addr().Is6() {
		h := make([]byte, 40)
		h[0], h[6] = 6<<4, protocol
		binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
		copy(h[8:], from.Addr().AsSlice())
		copy(h[24:], to.Addr().AsSlice())
		return append(h, body...)
	}
	h := make([]byte, 20)
	h[0], h[9] = 4<<4|5, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
	copy(h[12:], from.Addr().AsSlice())
	copy(h[16:], to.Addr().AsSlice())
	return append(h, body...)
}

// ikeMessage is a header of RFC 7296, Section 3.1, behind the non-ESP marker.
func ikeMessage(exchange byte, id uint32) []byte {
	b := make([]byte, 4+28)
	b[4+18] = exchange
	binary.BigEndian.PutUint32(b[4+20:], id)
	return b
}

func espPacket(spi uint32, n int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, spi), bytes.Repeat([]byte{'e'}, n)...)
}

func inLength(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(2+len(b))), b...)
}

func TestDissectUDP(t *testing.T) {
	d := NewDissector(443)
	v6 := netip.MustParseAddrPort("[fd00::10]:5555")
	server6 := netip.MustParseAddrPort("[fd00:5::2]:443")
	at := time.Unix(1000, 0)
	d.Packet(at, udpPacket(someClient, someServer, ikeMessage(34, 0)))
	d.Packet(at.Add(1), udpPacket(someServer, someClient, ikeMessage(34, 0)))
	d.Packet(at.Add(2), udpPacket(v6, server6, ikeMessage(35, 1)))
	d.Packet(at.Add(3), udpPacket(someClient, someServer, []byte{0xff}))
	d.Packet(at.Add(4), udpPacket(someClient, someServer, espPacket(7, 40)))
	d.Packet(at.Add(5), udpPacket(someClient, someServer, espPacket(7, 40)))
	d.Packet(at.Add(6), udpPacket(someClient, netip.MustParseAddrPort("198.51.100.2:53"), ikeMessage(36, 9)))

	if n := len(d.IKE(at, at.Add(time.Second))); n != 3 {
		t.Errorf("%d IKE messages, want 3", n)
	}
	late := d.IKE(at.Add(2), at.Add(3))
	if len(late) != 1 || late[0].From != v6 || late[0].Exchange != 35 || late[0].ID != 1 {
		t.Errorf("in the range of the third: %+v", late)
	}
	esp := d.ESP()
	if len(esp) != 1 || esp[0].SPI != 7 || esp[0].Packets != 2 || esp[0].First != at.Add(4) || esp[0].Last != at.Add(5) {
		t.Errorf("ESP: %+v", esp)
	}
}

// A stream is cut into segments in every way, with some out of order, repeated
// or overlapping, and one IKE message in the middle is found in each.
func TestDissectTCP(t *testing.T) {
	stream := []byte(streamPrefix)
	stream = append(stream, inLength(espPacket(7, 5))...)
	stream = append(stream, inLength(ikeMessage(36, 3))...)
	stream = append(stream, inLength(espPacket(7, 9))...)
	at := time.Unix(1000, 0)
	for size := 1; size <= len(stream); size++ {
		for _, order := range []string{"in order", "backwards", "overlapping"} {
			d := NewDissector(443)
			const isn = 0xfffffff0 // wraps on the way
			d.Packet(at, tcpPacket(someClient, someServer, isn, flagSYN, nil))
			d.Packet(at, tcpPacket(someServer, someClient, 99, flagSYN, nil))
			var packets [][]byte
			for i := 0; i < len(stream); i += size {
				from := i
				if order == "overlapping" && i > 0 {
					from -= min(i, size/2)
				}
				packets = append(packets, tcpPacket(someClient, someServer,
					uint32(isn+1+from), 0, stream[from:min(i+size, len(stream))]))
			}
			for i := range packets {
				if order == "backwards" {
					d.Packet(at, packets[len(packets)-1-i])
				} else {
					d.Packet(at, packets[i])
				}
			}
			d.Packet(at, tcpPacket(someServer, someClient, 100, 0, inLength(espPacket(8, 5))))
			ike, esp := d.IKE(at, at.Add(1)), d.ESP()
			if len(ike) != 1 || ike[0].ID != 3 || ike[0].Encapsulation != "tcp" {
				t.Fatalf("segments of %d %s: IKE %+v", size, order, ike)
			}
			packetsOf := map[uint32]int{}
			for _, s := range esp {
				packetsOf[s.SPI] += s.Packets
			}
			if packetsOf[7] != 2 || packetsOf[8] != 1 || d.Missing() != 0 {
				t.Fatalf("segments of %d %s: ESP %v, missing %d", size, order, packetsOf, d.Missing())
			}
		}
	}
}

func TestDissectOthers(t *testing.T) {
	d := NewDissector(443)
	at := time.Unix(1000, 0)
	for i, first := range []string{"\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\n", streamPrefix + "\x00\x01"} {
		from := netip.AddrPortFrom(someClient.Addr(), uint16(50000+i))
		d.Packet(at, tcpPacket(from, someServer, 1, flagSYN, nil))
		d.Packet(at, tcpPacket(from, someServer, 2, 0, []byte(first)))
	}
	tls, http := d.Connections()
	if tls != 1 || http != 1 || d.Missing() != 1 {
		t.Errorf("tls %d, http %d, missing %d; want one each", tls, http, d.Missing())
	}
}

func TestPcap(t *testing.T) {
	var b bytes.Buffer
	p := newPcapWriter(&b)
	p.frame(time.Unix(5, 7), bytes.Repeat([]byte{1}, 1000))
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	got := b.Bytes()
	if len(got) != 24+16+snapLength {
		t.Fatalf("%d bytes", len(got))
	}
	if le.Uint32(got[24:]) != 5 || le.Uint32(got[28:]) != 7 || le.Uint32(got[32:]) != snapLength || le.Uint32(got[36:]) != 1000 {
		t.Errorf("record header % x", got[24:40])
	}
}

func FuzzDissect(f *testing.F) {
	f.Add(udpPacket(someClient, someServer, ikeMessage(34, 0)), []byte(nil))
	f.Add(tcpPacket(someClient, someServer, 1, flagSYN, nil),
		tcpPacket(someClient, someServer, 2, 0, append([]byte(streamPrefix), inLength(ikeMessage(36, 1))...)))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		d := NewDissector(443)
		for _, b := range [][]byte{first, second, first, second} {
			d.Packet(time.Unix(0, 0), b)
			d.Frame(time.Unix(0, 0), b)
		}
	})
}
