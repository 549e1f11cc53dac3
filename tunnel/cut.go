package tunnel

import (
	"encoding/binary"
	"errors"
	"slices"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Errors of Cut.
var (
	// ErrTooBig tells that a packet is larger than the MTU and is none that
	// may be cut.
	ErrTooBig = errors.New("packet is larger than the MTU and cannot be cut")
	// ErrMalformed tells that an oversized packet's headers contradict its size.
	ErrMalformed = errors.New("malformed IP packet")
)

// Where fields lie; RFC 791, Section 3.1; RFC 8200, Section 3; RFC 9293, Section 3.1.
const (
	ipv4Header   = 20
	ipv4Length   = 2
	ipv4ID       = 4
	ipv4Fragment = 6
	ipv4Protocol = 9
	ipv4Checksum = 10
	ipv4Source   = 12

	ipv6Header     = 40
	ipv6Length     = 4
	ipv6NextHeader = 6
	ipv6Source     = 8

	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58

	tcpHeader   = 20
	tcpSequence = 4
	tcpAck      = 8
	tcpOffset   = 12
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
	tcpUrgent   = 18
)

// TCP's flags, RFC 9293, Section 3.1.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
	flagECE
	flagCWR
)

// Cut appends to out packets of at most mtu bytes that carry what pkt carries.
//
// A packet within mtu is appended as it is and aliases pkt. A larger one must
// be a TCP segment in IPv4 (options allowed, no fragment) or in IPv6 without
// extension headers; its pieces are written to dst, whose grown form is buf,
// with correct lengths, identifications, sequence numbers, flags and
// checksums. pkt's own TCP checksum is neither used nor verified. Anything
// else that is too large gives ErrTooBig, also IPv4 without DF: the receiver
// would have to hold fragments for a stranger. Headers that contradict the
// packet's size give ErrMalformed.
//
// With an error, buf and segs are dst and out. Nothing is allocated when dst
// and out have the capacity. dst must not overlap pkt.
func Cut(pkt []byte, mtu int, dst []byte, out [][]byte) (buf []byte, segs [][]byte, err error) {
	if len(pkt) <= mtu {
		return dst, append(out, pkt), nil
	}
	l, err := parseLayout(pkt, len(pkt))
	if err != nil {
		return dst, out, err
	}
	if l.total <= mtu { // bytes behind the packet's end are not part of it
		return dst, append(out, pkt[:l.total]), nil
	}
	return l.cut(pkt[:l.header()], reader{cur: pkt[l.header():l.total]}, mtu, dst, out)
}

// A layout is what cutting needs to know of a TCP segment.
type layout struct {
	v6      bool
	ip, tcp int // header lengths, in bytes
	total   int // of the IP packet, in bytes
	flags   byte
}

func (l layout) header() int { return l.ip + l.tcp }

// parseLayout reads the headers of an oversized packet of size bytes that
// starts with b. b holds the headers at least, if they are well-formed.
func parseLayout(b []byte, size int) (layout, error) {
	var l layout
	if len(b) < ipv4Header {
		return l, ErrMalformed
	}
	switch b[0] >> 4 {
	case 4:
		l.ip = int(b[0]&0xf) * 4
		l.total = int(binary.BigEndian.Uint16(b[ipv4Length:]))
		if l.ip < ipv4Header {
			return l, ErrMalformed
		}
		// More Fragments, or an offset: not a whole segment.
		if b[ipv4Protocol] != protocolTCP || binary.BigEndian.Uint16(b[ipv4Fragment:])&0x3fff != 0 {
			return l, ErrTooBig
		}
	case 6:
		if len(b) < ipv6Header {
			return l, ErrMalformed
		}
		l.v6, l.ip = true, ipv6Header
		l.total = ipv6Header + int(binary.BigEndian.Uint16(b[ipv6Length:]))
		if b[ipv6NextHeader] != protocolTCP {
			return l, ErrTooBig
		}
	default:
		return l, ErrMalformed
	}
	if l.total > size || l.ip+tcpHeader > min(l.total, len(b)) {
		return l, ErrMalformed
	}
	l.tcp = int(b[l.ip+tcpOffset]>>4) * 4
	if l.tcp < tcpHeader || l.header() > min(l.total, len(b)) {
		return l, ErrMalformed
	}
	l.flags = b[l.ip+tcpFlags]
	return l, nil
}

// cut does the work of Cut: header is the packet's, payload gives the rest.
func (l layout) cut(header []byte, payload reader, mtu int, dst []byte, out [][]byte) ([]byte, [][]byte, error) {
	room := mtu - l.header()
	if room < 1 || l.flags&(flagSYN|flagRST) != 0 {
		// A SYN has a sequence number of its own, and neither comes with more
		// than a packet's worth of data.
		return dst, out, ErrTooBig
	}
	left := l.total - l.header()
	count := (left + room - 1) / room
	dst = slices.Grow(dst, left+count*len(header))
	out = slices.Grow(out, count)

	tcp := header[l.ip:]
	seq := binary.BigEndian.Uint32(tcp[tcpSequence:])
	urgent := binary.BigEndian.Uint16(tcp[tcpUrgent:])
	id := binary.BigEndian.Uint16(header[ipv4ID:]) // unused for IPv6
	var pseudo uint16
	if l.v6 {
		pseudo = checksum.Checksum(header[ipv6Source:ipv6Header], protocolTCP)
	} else {
		pseudo = checksum.Checksum(header[ipv4Source:ipv4Header], protocolTCP)
	}

	for offset := 0; left > 0; {
		n := min(room, left)
		left -= n
		from := len(dst)
		dst = dst[:from+len(header)+n]
		seg := dst[from:len(dst):len(dst)]
		copy(seg, header)
		payload.read(seg[len(header):])

		if l.v6 {
			binary.BigEndian.PutUint16(seg[ipv6Length:], uint16(l.tcp+n))
		} else {
			binary.BigEndian.PutUint16(seg[ipv4Length:], uint16(len(seg)))
			binary.BigEndian.PutUint16(seg[ipv4ID:], id)
			id++
			completeIPv4(seg[:l.ip])
		}

		tcp := seg[l.ip:]
		binary.BigEndian.PutUint32(tcp[tcpSequence:], seq+uint32(offset))
		flags := l.flags
		if offset > 0 {
			// "After receipt of an ACK packet with the ECN-Echo flag the sender
			// sets CWR in the first new data packet", RFC 3168, Section 6.1.2.
			flags &^= flagCWR
		}
		if left > 0 {
			flags &^= flagPSH | flagFIN
		}
		if flags&flagURG != 0 {
			// The urgent pointer counts from the segment's sequence number.
			if u := int(urgent) - offset; u > 0 {
				binary.BigEndian.PutUint16(tcp[tcpUrgent:], uint16(u))
			} else {
				flags &^= flagURG
				binary.BigEndian.PutUint16(tcp[tcpUrgent:], 0)
			}
		}
		tcp[tcpFlags] = flags
		completeTCP(tcp, pseudo)

		out = append(out, seg)
		offset += n
	}
	return dst, out, nil
}

// completeIPv4 sets the checksum of an IPv4 header.
func completeIPv4(h []byte) {
	h[ipv4Checksum], h[ipv4Checksum+1] = 0, 0
	checksum.Put(h[ipv4Checksum:], ^checksum.Checksum(h, 0))
}

// completeTCP sets the checksum of a TCP segment; pseudo is the sum of the
// pseudo-header without its length.
func completeTCP(tcp []byte, pseudo uint16) {
	tcp[tcpChecksum], tcp[tcpChecksum+1] = 0, 0
	sum := checksum.Combine(pseudo, uint16(len(tcp)))
	checksum.Put(tcp[tcpChecksum:], ^checksum.Checksum(tcp, sum))
}

// A reader gives a packet's bytes in order, from one slice or from a chain of
// views.
type reader struct {
	cur  []byte
	next *buffer.View
}

// read fills b; bytes that are not there stay as they are, which cannot happen
// after parseLayout has compared the lengths.
func (r *reader) read(b []byte) {
	for len(b) > 0 {
		if len(r.cur) == 0 {
			if r.next == nil {
				return
			}
			r.cur, r.next = r.next.AsSlice(), r.next.Next()
			continue
		}
		n := copy(b, r.cur)
		b, r.cur = b[n:], r.cur[n:]
	}
}
