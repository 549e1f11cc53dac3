package regmsg

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	udpHeaderLen  = 8
	protocolUDP   = 17
	hopLimit      = 64
)

// AppendPacket appends an inner IP packet that carries m in UDP from and to
// Port. Both addresses must be of one IP version.
func AppendPacket(dst []byte, from, to netip.Addr, m Message) ([]byte, error) {
	from, to = from.Unmap(), to.Unmap()
	if !from.IsValid() || !to.IsValid() || from.Is4() != to.Is4() {
		return dst, fmt.Errorf("registration packet from %v to %v: addresses do not match", from, to)
	}
	start := len(dst)
	headerLen := ipv6HeaderLen
	if from.Is4() {
		headerLen = ipv4HeaderLen
	}
	var zero [ipv6HeaderLen + udpHeaderLen]byte
	b := append(dst, zero[:headerLen+udpHeaderLen]...)
	b, err := m.AppendBinary(b)
	if err != nil {
		return dst, err
	}
	p := b[start:]
	udp := p[headerLen:]
	if from.Is4() {
		p[0] = 4<<4 | ipv4HeaderLen/4
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		// Never to be fragmented, so the identification may be zero; RFC 6864,
		// Section 4.1.
		p[6] = 0x40
		p[8] = hopLimit
		p[9] = protocolUDP
		copy(p[12:], from.AsSlice())
		copy(p[16:], to.AsSlice())
		binary.BigEndian.PutUint16(p[10:], ^sum(0, p[:ipv4HeaderLen]))
	} else {
		p[0] = 6 << 4
		binary.BigEndian.PutUint16(p[4:], uint16(len(udp)))
		p[6] = protocolUDP
		p[7] = hopLimit
		copy(p[8:], from.AsSlice())
		copy(p[24:], to.AsSlice())
	}
	binary.BigEndian.PutUint16(udp[0:], Port)
	binary.BigEndian.PutUint16(udp[2:], Port)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	c := ^udpSum(from, to, udp)
	if c == 0 {
		c = 0xffff // zero would mean that there is none; RFC 768
	}
	binary.BigEndian.PutUint16(udp[6:], c)
	return b, nil
}

// IsRegistration reports, cheaply, that an inner packet is UDP to Port and not
// a fragment. Such packets are for ParsePacket and never for the tunnel.
func IsRegistration(ip []byte) bool {
	_, udp := split(ip)
	return len(udp) >= udpHeaderLen && binary.BigEndian.Uint16(udp[2:]) == Port
}

// split gives the IP header and what follows if that is UDP, unfragmented and
// without IPv6 extension headers; else nil.
func split(ip []byte) (header, udp []byte) {
	if len(ip) == 0 {
		return nil, nil
	}
	switch ip[0] >> 4 {
	case 4:
		n := int(ip[0]&0x0f) * 4
		if len(ip) < ipv4HeaderLen || n < ipv4HeaderLen || len(ip) < n ||
			ip[9] != protocolUDP || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
			return nil, nil
		}
		total := int(binary.BigEndian.Uint16(ip[2:]))
		if total < n || total > len(ip) {
			return nil, nil
		}
		return ip[:n], ip[n:total]
	case 6:
		if len(ip) < ipv6HeaderLen || ip[6] != protocolUDP {
			return nil, nil
		}
		total := ipv6HeaderLen + int(binary.BigEndian.Uint16(ip[4:]))
		if total > len(ip) {
			return nil, nil
		}
		return ip[:ipv6HeaderLen], ip[ipv6HeaderLen:total]
	}
	return nil, nil
}

// ParsePacket reads a packet that IsRegistration holds for. It checks the
// lengths and both checksums; that of UDP must be there over IPv4 too, since
// this package always writes one. Errors match ErrNotRegistration,
// ErrMalformed or ErrUnsupported.
func ParsePacket(ip []byte) (from, to netip.Addr, m Message, err error) {
	header, udp := split(ip)
	if len(udp) < udpHeaderLen || binary.BigEndian.Uint16(udp[2:]) != Port {
		return from, to, nil, ErrNotRegistration
	}
	if len(header) == ipv6HeaderLen && header[0]>>4 == 6 {
		from = netip.AddrFrom16([16]byte(header[8:]))
		to = netip.AddrFrom16([16]byte(header[24:]))
	} else {
		if sum(0, header) != 0xffff {
			return netip.Addr{}, netip.Addr{}, nil, malformed("IPv4 checksum")
		}
		from = netip.AddrFrom4([4]byte(header[12:]))
		to = netip.AddrFrom4([4]byte(header[16:]))
	}
	if int(binary.BigEndian.Uint16(udp[4:])) != len(udp) {
		return netip.Addr{}, netip.Addr{}, nil, malformed("UDP length")
	}
	if binary.BigEndian.Uint16(udp[6:]) == 0 || udpSum(from, to, udp) != 0xffff {
		return netip.Addr{}, netip.Addr{}, nil, malformed("UDP checksum")
	}
	if m, err = Parse(udp[udpHeaderLen:]); err != nil {
		return netip.Addr{}, netip.Addr{}, nil, err
	}
	return from, to, m, nil
}

// udpSum is the ones' complement sum of the pseudo-header (RFC 768; RFC 8200,
// Section 8.1) and the datagram.
func udpSum(from, to netip.Addr, udp []byte) uint16 {
	s := sum(0, from.AsSlice())
	s = sum(s, to.AsSlice())
	s = sum(s, []byte{0, protocolUDP, byte(len(udp) >> 8), byte(len(udp))})
	return sum(s, udp)
}

// sum adds b to the ones' complement sum s, RFC 1071.
func sum(s uint16, b []byte) uint16 {
	t := uint32(s)
	for len(b) >= 2 {
		t += uint32(b[0])<<8 | uint32(b[1])
		b = b[2:]
		t = t&0xffff + t>>16
	}
	if len(b) == 1 {
		t += uint32(b[0]) << 8
	}
	t = t&0xffff + t>>16
	return uint16(t&0xffff + t>>16)
}
