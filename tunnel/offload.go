package tunnel

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// An Offload is what is left to do with a packet that AppendPartial gave, in the
// words of struct virtio_net_hdr: complete the checksum, and cut the segment.
// The zero Offload is nothing.
type Offload struct {
	// ChecksumStart is where the bytes begin that the checksum is over, and
	// ChecksumOffset where it belongs, counted from there, in bytes; there
	// stands the sum of the pseudo-header now. Start is 0 if it is complete.
	ChecksumStart, ChecksumOffset int
	// Header is the length of all headers, and Segment how much payload each
	// piece may have, in bytes; Segment is 0 for a packet that need not be cut.
	Header, Segment int
	V6              bool
}

// AppendPartial appends the packet's Len bytes to dst and leaves to another what
// a network card would do, as a Linux host takes it from a TUN device.
func (p Packet) AppendPartial(dst []byte) ([]byte, Offload) {
	if !p.partial() {
		return p.AppendTo(dst), Offload{}
	}
	dst = p.appendAsIs(dst)
	o := Offload{ChecksumStart: len(p.pb.NetworkHeader().Slice()), ChecksumOffset: tcpChecksum, V6: p.pb.GSOOptions.Type == stack.GSOTCPv6}
	o.Header = o.ChecksumStart + len(p.pb.TransportHeader().Slice())
	if mss := int(p.pb.GSOOptions.MSS); p.Len()-o.Header > mss {
		o.Segment = mss
	}
	return dst, o
}
