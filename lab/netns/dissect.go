package netns

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

// A Message is one IKE message that was seen on the wire.
type Message struct {
	Time          time.Time
	Encapsulation string // "udp" or "tcp"
	From, To      netip.AddrPort
	Exchange      uint8 // RFC 7296, Section 3.1
	ID            uint32
}

// A Stream counts the ESP packets of one SA that went from one address to
// another in one encapsulation.
type Stream struct {
	Encapsulation string // "udp" or "tcp"
	From, To      netip.AddrPort
	SPI           uint32
	Packets       int
	First, Last   time.Time
}

// A Dissector tells IKE messages from ESP packets in the frames to and from
// one port of a server: in UDP (RFC 3948) and in TCP streams (RFC 9329). It
// cannot look into TLS. It must see a TCP connection from its first segment on.
// Its methods may be called from several goroutines.
type Dissector struct {
	port uint16

	mu      sync.Mutex
	ike     []Message
	esp     map[espKey]*Stream
	conns   map[connKey]*conn
	tls     int
	http    int
	missing int
}

type espKey struct {
	encapsulation string
	from, to      netip.AddrPort
	spi           uint32
}

// NewDissector makes a dissector for a server's port.
func NewDissector(port uint16) *Dissector {
	return &Dissector{port: port, esp: map[espKey]*Stream{}, conns: map[connKey]*conn{}}
}

// IKE gives the messages seen from one time up to another.
func (d *Dissector) IKE(from, to time.Time) (ms []Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.ike {
		if !m.Time.Before(from) && m.Time.Before(to) {
			ms = append(ms, m)
		}
	}
	return ms
}

// ESP gives the streams, in no order.
func (d *Dissector) ESP() (ss []Stream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.esp {
		ss = append(ss, *s)
	}
	return ss
}

// Connections counts the TCP connections that carried TLS and those that
// carried plain HTTP.
func (d *Dissector) Connections() (tls, http int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tls, d.http
}

// Missing counts connections that broke the framing or could not be put in
// order: in them, messages may have gone unseen. A gap that was never filled
// does not count, as the receiving end did not get past it either.
func (d *Dissector) Missing() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.missing
}

// Frame takes an Ethernet frame.
func (d *Dissector) Frame(at time.Time, frame []byte) {
	if len(frame) < 14 {
		return
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800, 0x86dd:
		d.Packet(at, frame[14:])
	}
}

// Packet takes an IP packet. Fragments but the first are passed over, as are
// IPv6 packets with extension headers.
func (d *Dissector) Packet(at time.Time, ip []byte) {
	from, to, protocol, body, ok := splitIP(ip)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch protocol {
	case 17:
		// Source port, destination port, length, checksum: RFC 768.
		if len(body) < 8 {
			return
		}
		src := netip.AddrPortFrom(from, binary.BigEndian.Uint16(body))
		dst := netip.AddrPortFrom(to, binary.BigEndian.Uint16(body[2:]))
		payload := body[8:]
		if n := int(binary.BigEndian.Uint16(body[4:])); n >= 8 && n <= len(body) {
			payload = body[8:n]
		}
		switch {
		case src.Port() == d.port || dst.Port() == d.port:
			d.message(at, "udp", src, dst, payload)
		case src.Port() == 500 || dst.Port() == 500: // IKE's own port, without marker
			d.addIKE(at, "udp", src, dst, payload)
		}
	case 6:
		if len(body) < 20 {
			return
		}
		src := netip.AddrPortFrom(from, binary.BigEndian.Uint16(body))
		dst := netip.AddrPortFrom(to, binary.BigEndian.Uint16(body[2:]))
		if src.Port() == d.port || dst.Port() == d.port {
			d.segment(at, src, dst, body)
		}
	}
}

// splitIP gives what the dissector needs of an IP header.
func splitIP(ip []byte) (from, to netip.Addr, protocol byte, body []byte, ok bool) {
	if len(ip) < 20 {
		return
	}
	switch ip[0] >> 4 {
	case 4:
		ihl, n := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if n > len(ip) || n == 0 { // cut short, or a segment too large to say
			n = len(ip)
		}
		// A fragment offset other than zero: no header inside.
		if ihl < 20 || n < ihl || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
			return
		}
		from, to = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
		return from, to, ip[9], ip[ihl:n], true
	case 6:
		if len(ip) < 40 {
			return
		}
		n := 40 + int(binary.BigEndian.Uint16(ip[4:]))
		if n > len(ip) || n == 40 {
			n = len(ip)
		}
		from, to = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
		return from, to, ip[6], ip[40:n], true
	}
	return
}

// message takes what one UDP datagram or one length of a TCP stream holds.
func (d *Dissector) message(at time.Time, encapsulation string, from, to netip.AddrPort, b []byte) {
	// "A NAT-keepalive packet" is one octet, RFC 3948, Section 2.3.
	if len(b) < 8 {
		return
	}
	spi := binary.BigEndian.Uint32(b)
	if spi == 0 { // the non-ESP marker, RFC 3948, Section 2.2
		d.addIKE(at, encapsulation, from, to, b[4:])
		return
	}
	k := espKey{encapsulation, from, to, spi}
	s := d.esp[k]
	if s == nil {
		s = &Stream{Encapsulation: encapsulation, From: from, To: to, SPI: spi, First: at}
		d.esp[k] = s
	}
	s.Packets++
	s.Last = at
}

// addIKE takes an IKE message, RFC 7296, Section 3.1. One that is cut short
// counts too.
func (d *Dissector) addIKE(at time.Time, encapsulation string, from, to netip.AddrPort, b []byte) {
	m := Message{Time: at, Encapsulation: encapsulation, From: from, To: to}
	if len(b) >= 28 {
		m.Exchange, m.ID = b[18], binary.BigEndian.Uint32(b[20:])
	}
	d.ike = append(d.ike, m)
}
