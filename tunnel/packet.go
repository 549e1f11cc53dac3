package tunnel

import (
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A Packet is an IP packet that leaves a Stack: up to 64 KiB, and in a TCP
// stream usually far more than the MTU; Cut makes it fit. It holds a reference
// to the stack's memory, to be given back with Release exactly once. Copies of
// the value share that one reference. The zero Packet is empty.
type Packet struct {
	pb     *stack.PacketBuffer
	mtu    int   // of the stack that made it, if that is less than InnerMTU; else 0
	queued int64 // when a Queue took it, Unix nanoseconds; 0: none has
}

// maxPacket is the largest IP packet, in bytes: IPv4's Total Length has 16 bits.
const maxPacket = 65535

// NewPacket makes a Packet with a copy of b, which has at most 65,535 bytes and
// complete checksums. It serves packets that do not come from a Stack.
func NewPacket(b []byte) Packet {
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	if len(b) >= ipv4Header {
		n := ipv4Header
		if b[0]>>4 == 6 {
			n = min(ipv6Header, len(b))
		}
		pb.NetworkHeader().Consume(n)
	}
	return Packet{pb: pb}
}

// Queued is when a Queue took the packet, by package clock; 0 if none has.
func (p Packet) Queued() int64 { return p.queued }

// Len is the length in bytes of the whole IP packet.
func (p Packet) Len() int {
	if p.pb == nil {
		return 0
	}
	return p.pb.Size()
}

// Retain takes another reference, with a Release of its own.
func (p Packet) Retain() Packet {
	if p.pb != nil {
		p.pb.IncRef()
	}
	return p
}

// Release gives the reference back; the packet must not be used any more.
func (p Packet) Release() {
	if p.pb != nil {
		p.pb.DecRef()
	}
}

// Destination is the packet's destination address; the zero Addr if it has no
// IP header.
func (p Packet) Destination() netip.Addr {
	if p.pb == nil {
		return netip.Addr{}
	}
	switch h := p.pb.NetworkHeader().Slice(); {
	case len(h) >= ipv4Header && h[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(h[ipv4Source+4:]))
	case len(h) >= ipv6Header && h[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(h[ipv6Source+16:]))
	}
	return netip.Addr{}
}

// appendAsIs appends the packet's bytes as the stack made them.
func (p Packet) appendAsIs(dst []byte) []byte {
	views, offset := p.pb.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		n := min(offset, len(b))
		offset -= n
		dst = append(dst, b[n:]...)
	}
	return dst
}

// AppendTo appends the packet's Len bytes to dst, all checksums complete.
func (p Packet) AppendTo(dst []byte) []byte {
	if p.pb == nil {
		return dst
	}
	from := len(dst)
	dst = p.appendAsIs(dst)
	if p.partial() {
		// The stack has left the sum of the pseudo-header in the checksum's
		// place, for a network card to go on from there.
		tcp := dst[from+len(p.pb.NetworkHeader().Slice()):]
		checksum.Put(tcp[tcpChecksum:], ^checksum.Checksum(tcp, 0))
	}
	return dst
}

// partial reports that the TCP checksum is left for AppendTo and AppendCut.
func (p Packet) partial() bool {
	return p.pb.GSOOptions.Type != stack.GSONone && p.pb.GSOOptions.NeedsCsum
}

// AppendCut is Cut(p.AppendTo(nil), mtu, dst, out) with one copy and one
// checksum instead of two. A packet within mtu is appended to dst too. Others than
// TCP's become fragments, unless that is forbidden. TCP's pieces
// from a stack with an MTU below InnerMTU, whose peers are not godwit, are no larger
// than that and the peer's MSS allow.
func (p Packet) AppendCut(dst []byte, mtu int, out [][]byte) (buf []byte, segs [][]byte, err error) {
	if p.pb != nil && p.partial() {
		mtu = min(mtu, p.largest())
	}
	if p.Len() <= mtu || !p.partial() {
		from := len(dst)
		buf = p.AppendTo(dst)
		pkt := buf[from:len(buf):len(buf)]
		if len(pkt) <= mtu {
			return buf, append(out, pkt), nil
		}
		// The stack did not know how narrow the path is.
		buf, segs, err = Cut(pkt, mtu, buf, out)
		if errors.Is(err, ErrTooBig) {
			buf, segs, err = fragments(pkt, mtu, buf, out)
		}
		if err != nil {
			return dst, out, err
		}
		return buf, segs, nil
	}
	var header [maxHeader]byte
	views, offset := p.pb.AsViewList()
	payload := reader{next: views.Front()}
	payload.skip(offset)
	n := len(p.pb.NetworkHeader().Slice()) + len(p.pb.TransportHeader().Slice())
	if n > len(header) {
		return dst, out, ErrMalformed
	}
	payload.read(header[:n])
	l, err := parseLayout(header[:n], p.Len())
	if err != nil {
		return dst, out, err
	}
	if l.header() != n || l.total != p.Len() {
		return dst, out, ErrMalformed
	}
	return l.cut(header[:n], payload, mtu, dst, out)
}

// largest is the size of the pieces that TCP wants its segment in, in bytes.
func (p Packet) largest() int {
	if p.mtu == 0 {
		return maxPacket
	}
	size := p.mtu
	headers := len(p.pb.NetworkHeader().Slice()) + len(p.pb.TransportHeader().Slice())
	// gVisor takes room for SACK blocks off the MSS, whether there are any or not.
	if mss := int(p.pb.GSOOptions.MSS); mss > 0 && headers+mss+maxSACK < size {
		size = headers + mss
	}
	return size
}

// maxSACK is how long TCP's option with SACK blocks gets, beside timestamps: kind,
// length, three blocks and padding (RFC 2018, Section 3).
const maxSACK = 2 + 3*8 + 2

// maxHeader is room for an IP header and a TCP header with all their options.
const maxHeader = 60 + 60

// skip passes over n bytes.
func (r *reader) skip(n int) {
	for n > 0 {
		if len(r.cur) == 0 {
			if r.next == nil {
				return
			}
			r.cur, r.next = r.next.AsSlice(), r.next.Next()
			continue
		}
		m := min(n, len(r.cur))
		n, r.cur = n-m, r.cur[m:]
	}
}
