package tunnel

import (
	"encoding/binary"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxRuns is how many flows of one batch are put together at a time. With more
// the oldest run ends early, which costs speed and nothing else.
const maxRuns = 8

// A coalescer undoes Cut: of a batch of packets it makes few large ones. What
// follows one another in a TCP flow becomes a run, and a run becomes one
// segment, written straight into the memory that the stack keeps.
//
// Packets of one flow keep their order. Those of different flows may not.
type coalescer struct {
	runs  [maxRuns]run // the first n are open, the oldest first
	n     int
	input func(tcpip.NetworkProtocolNumber, *stack.PacketBuffer)
	order *order // keeps segments in order; nil: they go in as they come
	way   Way    // that the batch came by
}

var coalescers = sync.Pool{New: func() any { return new(coalescer) }}

// A run is consecutive segments of one flow.
type run struct {
	tcpSegment
	first  []byte   // the first packet, whose header stands for all
	pieces [][]byte // the payloads of the others
	total  int      // length of the packet that the run makes, in bytes
	next   uint32   // the sequence number that goes on
	last   bool     // nothing can follow: FIN
}

// A flow is what tells one TCP connection from another. IPv4 leaves the rest
// of the addresses zero.
type flow struct {
	addrs [4]uint64
	ports uint32
	v6    bool
}

// A tcpSegment is a TCP packet that may become part of a run.
type tcpSegment struct {
	flow   flow
	ip     int // length of the IP header, in bytes
	header int // and with TCP's
	seq    uint32
	flags  byte
	scale  uint8 // of a SYN
}

// add takes the next packet of the batch.
func (c *coalescer) add(b []byte) {
	var s tcpSegment
	switch s.parse(b) {
	case other:
		c.pass(b)
		return
	case strange:
		// It may belong to any flow.
		c.flush()
		c.pass(b)
		return
	}
	i := 0
	for i < c.n && c.runs[i].flow != s.flow {
		i++
	}
	joins := len(b) > s.header && s.flags&^(flagPSH|flagFIN|flagECE|flagCWR) == flagACK
	if i < c.n {
		if joins && c.runs[i].join(&s, b) {
			return
		}
		c.end(i)
	}
	if !joins || s.flags&flagFIN != 0 {
		c.passSegment(&s, b)
		return
	}
	if c.n == maxRuns {
		c.end(0)
	}
	r := &c.runs[c.n]
	c.n++
	r.tcpSegment, r.first, r.pieces = s, b, r.pieces[:0]
	r.total, r.next, r.last = len(b), s.seq+uint32(len(b)-s.header), false
}

// join makes b the run's next piece if nothing but the place in the stream, and
// flags that concern its end, tells it from the first.
func (r *run) join(s *tcpSegment, b []byte) bool {
	size := len(b) - s.header
	if r.last || s.seq != r.next || s.header != r.header || r.total+size > maxPacket ||
		(s.flags^r.flags)&^(flagPSH|flagFIN) != 0 || s.flags&flagCWR != 0 {
		return false
	}
	if s.flow.v6 {
		// Version (4), Traffic Class (8), Flow Label (20); Next Header (8), Hop Limit (8)
		if binary.BigEndian.Uint32(b) != binary.BigEndian.Uint32(r.first) || [2]byte(b[ipv6NextHeader:]) != [2]byte(r.first[ipv6NextHeader:]) {
			return false
		}
	} else {
		// Version (4), IHL (4), Type of Service (8); Flags (3), Fragment Offset
		// (13), Time to Live (8), Protocol (8). The identification says nothing
		// where there are no fragments (RFC 6864, Section 4).
		if [2]byte(b) != [2]byte(r.first) || [4]byte(b[ipv4Fragment:]) != [4]byte(r.first[ipv4Fragment:]) {
			return false
		}
	}
	// Reserved bits; Acknowledgment Number; Window; the options, timestamps
	// among them: equal ones, as what TCP measures must be the time of one
	// packet.
	tcp, first := b[s.ip:s.header], r.first[r.ip:r.header]
	if tcp[tcpOffset] != first[tcpOffset] || [4]byte(tcp[tcpAck:]) != [4]byte(first[tcpAck:]) || [2]byte(tcp[tcpWindow:]) != [2]byte(first[tcpWindow:]) ||
		string(tcp[tcpHeader:]) != string(first[tcpHeader:]) {
		return false
	}
	r.pieces = append(r.pieces, b[s.header:])
	r.total += size
	r.next += uint32(size)
	r.flags |= s.flags
	r.last = s.flags&flagFIN != 0
	return true
}

// end gives run i to the stack and forgets it.
func (c *coalescer) end(i int) {
	r := c.runs[i]
	switch {
	case len(r.pieces) == 0:
		c.passSegment(&r.tcpSegment, r.first)
	case c.order != nil:
		c.order.clamp(&r.tcpSegment, r.first[r.ip:r.header], c.way.Window)
		end := r.next
		if r.last {
			end++ // FIN takes a number
		}
		c.order.take(&r.tcpSegment, end, r.protocol(), r.packet(), c.way.Hold)
	default:
		c.input(r.protocol(), r.packet())
	}
	clear(r.pieces)
	c.n--
	copy(c.runs[i:c.n], c.runs[i+1:c.n+1])
	c.runs[c.n] = run{pieces: r.pieces[:0]}
}

// flush ends all runs.
func (c *coalescer) flush() {
	for c.n > 0 {
		c.end(0)
	}
}

func (r *run) protocol() tcpip.NetworkProtocolNumber {
	if r.flow.v6 {
		return header.IPv6ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}

// packet copies the run into one packet. Its checksums are not right, and need
// not be: see link.Capabilities.
func (r *run) packet() *stack.PacketBuffer {
	var h [maxHeader]byte
	n := copy(h[:], r.first[:r.header])
	if r.flow.v6 {
		binary.BigEndian.PutUint16(h[ipv6Length:], uint16(r.total-ipv6Header))
	} else {
		binary.BigEndian.PutUint16(h[ipv4Length:], uint16(r.total))
	}
	h[r.ip+tcpFlags] = r.flags
	// Headers and payload apart: gVisor copies the memory that headers lie in
	// when it looks at them again while TCP has the segment. Headers lie at the
	// end of theirs, or Append would move some of the payload there.
	headers := buffer.NewView(n)
	headers.Grow(headers.Capacity() - n)
	headers.TrimFront(headers.Size())
	headers.Write(h[:n])
	v := buffer.NewView(r.total - n)
	v.Write(r.first[r.header:])
	for _, p := range r.pieces {
		v.Write(p)
	}
	b := buffer.MakeWithView(headers)
	_ = b.Append(v) // fails beyond 2 GiB
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b})
}

// pass gives a packet to the stack as it is.
func (c *coalescer) pass(b []byte) { c.input(single(b)) }

// passSegment is pass for a TCP segment.
func (c *coalescer) passSegment(s *tcpSegment, b []byte) {
	if c.order == nil {
		c.pass(b)
		return
	}
	end := s.seq + uint32(len(b)-s.header)
	if s.flags&(flagSYN|flagFIN) != 0 {
		end++ // they take a number
	}
	c.order.clamp(s, b[s.ip:s.header], c.way.Window)
	proto, pb := single(b)
	c.order.take(s, end, proto, pb, c.way.Hold)
}

// passParsed is pass for a packet that has not been looked at.
func (c *coalescer) passParsed(b []byte) {
	var s tcpSegment
	if c.order != nil && s.parse(b) == plain {
		c.passSegment(&s, b)
	} else {
		c.pass(b)
	}
}

func single(b []byte) (tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {
	proto := header.IPv4ProtocolNumber
	if b[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	return proto, stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
}

// What tcpSegment.parse finds.
type kind int

const (
	plain   kind = iota // a TCP segment
	other               // no TCP
	strange             // what may be TCP, but not as Cut would make it
)

// parse reads a packet of at least one byte. Of a plain one all lengths are
// right.
func (s *tcpSegment) parse(b []byte) kind {
	if len(b) < ipv4Header {
		return strange
	}
	var proto byte
	if b[0] == 0x45 { // IPv4 without options
		proto, s.ip = b[ipv4Protocol], ipv4Header
		if int(binary.BigEndian.Uint16(b[ipv4Length:])) != len(b) || binary.BigEndian.Uint16(b[ipv4Fragment:])&0x3fff != 0 {
			return strange
		}
	} else if b[0]>>4 == 6 && len(b) >= ipv6Header {
		proto, s.ip, s.flow.v6 = b[ipv6NextHeader], ipv6Header, true
		if int(binary.BigEndian.Uint16(b[ipv6Length:])) != len(b)-ipv6Header {
			return strange
		}
	} else {
		return strange
	}
	switch proto {
	case protocolTCP:
	case protocolUDP, protocolICMP, protocolICMPv6:
		return other
	default:
		return strange // IPv6's extension headers among them
	}
	if len(b) < s.ip+tcpHeader {
		return strange
	}
	tcp := b[s.ip:]
	s.header = s.ip + int(tcp[tcpOffset]>>4)*4
	if s.header < s.ip+tcpHeader || s.header > len(b) {
		return strange
	}
	s.flow.ports = binary.BigEndian.Uint32(tcp)
	s.seq, s.flags = binary.BigEndian.Uint32(tcp[tcpSequence:]), tcp[tcpFlags]
	if s.flow.v6 {
		for i := range s.flow.addrs {
			s.flow.addrs[i] = binary.BigEndian.Uint64(b[ipv6Source+8*i:])
		}
	} else {
		s.flow.addrs[0] = binary.BigEndian.Uint64(b[ipv4Source:])
	}
	return plain
}
