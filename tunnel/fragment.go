package tunnel

import (
	"encoding/binary"
	"hash/crc32"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

const (
	ipv4DontFragment  = 1 << 14
	ipv4MoreFragments = 1 << 13
	fragmentOffset    = 1<<13 - 1 // in units of 8 bytes

	protocolFragment   = 44
	ipv6FragmentHeader = 8
)

// fragments appends to out fragments of an IP packet, of at most mtu bytes each, as
// the stack that made the packet would have, had it known of that MTU (RFC 791, Section
// 3.2; RFC 8200, Section 4.5). The packet may be a fragment itself. IPv4 packets that
// must not be fragmented or that have options, and IPv6 packets with other extension
// headers than a fragment's, give ErrTooBig.
func fragments(pkt []byte, mtu int, dst []byte, out [][]byte) (buf []byte, segs [][]byte, err error) {
	if len(pkt) < ipv4Header {
		return dst, out, ErrMalformed
	}
	if pkt[0]>>4 == 6 {
		return fragments6(pkt, mtu, dst, out)
	}
	flags := binary.BigEndian.Uint16(pkt[ipv4Fragment:])
	total := int(binary.BigEndian.Uint16(pkt[ipv4Length:]))
	room := (mtu - ipv4Header) &^ 7
	switch {
	case pkt[0]>>4 != 4 || total < ipv4Header || total > len(pkt):
		return dst, out, ErrMalformed
	case pkt[0]&0xf != 5 || flags&ipv4DontFragment != 0 || room < 8:
		return dst, out, ErrTooBig
	}
	header, payload := pkt[:ipv4Header], pkt[ipv4Header:total]
	return cutFragments(payload, room, len(header), dst, out, func(f []byte, at int, last bool) bool {
		copy(f, header)
		field := int(flags&fragmentOffset) + at/8
		if field > fragmentOffset {
			return false
		}
		if !last || flags&ipv4MoreFragments != 0 {
			field |= ipv4MoreFragments
		}
		binary.BigEndian.PutUint16(f[ipv4Length:], uint16(len(f)))
		binary.BigEndian.PutUint16(f[ipv4Fragment:], uint16(field))
		f[ipv4Checksum], f[ipv4Checksum+1] = 0, 0
		checksum.Put(f[ipv4Checksum:], ^checksum.Checksum(f[:ipv4Header], 0))
		return true
	})
}

func fragments6(pkt []byte, mtu int, dst []byte, out [][]byte) (buf []byte, segs [][]byte, err error) {
	if len(pkt) < ipv6Header {
		return dst, out, ErrMalformed
	}
	total := ipv6Header + int(binary.BigEndian.Uint16(pkt[ipv6Length:]))
	room := (mtu - ipv6Header - ipv6FragmentHeader) &^ 7
	if total > len(pkt) {
		return dst, out, ErrMalformed
	}
	payload, next := pkt[ipv6Header:total], pkt[ipv6NextHeader]
	var field uint16 // offset in bytes, and the bit for more
	// A packet that is sent again has the same fragments, of which some may be there.
	id := crc32.ChecksumIEEE(pkt[:total])
	switch {
	case room < 8:
		return dst, out, ErrTooBig
	case next == protocolFragment:
		if len(payload) < ipv6FragmentHeader {
			return dst, out, ErrMalformed
		}
		next, field, id = payload[0], binary.BigEndian.Uint16(payload[2:]), binary.BigEndian.Uint32(payload[4:])
		payload = payload[ipv6FragmentHeader:]
	case next != protocolUDP && next != protocolICMPv6 && next != protocolTCP:
		return dst, out, ErrTooBig
	}
	const more = 1
	return cutFragments(payload, room, ipv6Header+ipv6FragmentHeader, dst, out, func(f []byte, at int, last bool) bool {
		copy(f, pkt[:ipv6Header])
		f[ipv6NextHeader] = protocolFragment
		binary.BigEndian.PutUint16(f[ipv6Length:], uint16(len(f)-ipv6Header))
		offset := int(field&^7) + at
		if offset > 0xffff {
			return false
		}
		h := f[ipv6Header:]
		h[0], h[1] = next, 0
		n := uint16(offset)
		if !last || field&more != 0 {
			n |= more
		}
		binary.BigEndian.PutUint16(h[2:], n)
		binary.BigEndian.PutUint32(h[4:], id)
		return true
	})
}

// cutFragments cuts payload into pieces of room bytes, and has complete write the
// headers of each, which have size bytes; at is where it begins in payload.
func cutFragments(payload []byte, room, size int, dst []byte, out [][]byte, complete func(f []byte, at int, last bool) bool) ([]byte, [][]byte, error) {
	count := max((len(payload)+room-1)/room, 1)
	buf := slices.Grow(dst, len(payload)+count*size)
	segs := slices.Grow(out, count)
	for at := 0; ; {
		n := min(room, len(payload)-at)
		from := len(buf)
		buf = buf[:from+size+n]
		f := buf[from:len(buf):len(buf)]
		copy(f[size:], payload[at:at+n])
		if !complete(f, at, at+n == len(payload)) {
			return dst, out, ErrMalformed
		}
		segs = append(segs, f)
		if at += n; at == len(payload) {
			return buf, segs, nil
		}
	}
}
