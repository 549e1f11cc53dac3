package tunnel

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// lowWindow is from which value of the Window field on there is room enough
	// that a peer is not expected to have used it all; 64 KiB as our buffers
	// scale it.
	lowWindow = 512
	// maxLow bounds the connections that are watched. One too many only makes
	// another wait for its next packet.
	maxLow = 4096
)

// windows watches the connections of a stack whose receive window is small, and
// lets in what their peers acknowledge.
//
// "If the RCV.WND is zero, no segments will be acceptable, but special allowance
// should be made to accept valid ACKs, URGs, and RSTs." RFC 9293, Section
// 3.10.7.4. gVisor makes none: a segment that begins behind the window is dropped
// whole. A peer may well be there, as a window is announced in units of 128
// bytes: what it was told first reaches up to 127 bytes further than what counts
// after the next packet. Once it has sent that rest all of its acknowledgments
// begin behind a closed window. If our application reads no more until it gets
// rid of what it writes, as an echo does, the connection stands for good.
type windows struct {
	watched atomic.Int32 // len(low)

	mu  sync.Mutex
	low map[flow]window // by the flow of what comes in
}

// A window is what our last packet said.
type window struct {
	next   uint32 // that we expect: its Acknowledgment Number
	closed bool
	// acked is what the peer acknowledged last with data, if any.
	acked uint32
	any   bool
}

// out looks at a packet that leaves.
func (w *windows) out(pb *stack.PacketBuffer) {
	if pb.TransportProtocolNumber != header.TCPProtocolNumber {
		return
	}
	ip, tcp := pb.NetworkHeader().Slice(), pb.TransportHeader().Slice()
	if len(tcp) < tcpHeader {
		return
	}
	size := binary.BigEndian.Uint16(tcp[tcpWindow:])
	// A SYN begins another connection, and its window is not scaled.
	open := size >= lowWindow || tcp[tcpFlags]&(flagACK|flagSYN|flagRST) != flagACK
	if open && w.watched.Load() == 0 {
		return
	}
	f, ok := answers(ip, tcp)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	was, found := w.low[f]
	switch {
	case open:
		delete(w.low, f)
	case !found && len(w.low) >= maxLow:
		for other := range w.low {
			delete(w.low, other)
			break
		}
		fallthrough
	default:
		if w.low == nil {
			w.low = make(map[flow]window)
		}
		was.next, was.closed = binary.BigEndian.Uint32(tcp[tcpAck:]), size == 0
		w.low[f] = was
	}
	w.watched.Store(int32(len(w.low)))
}

// answers is the flow of the answers to a packet.
func answers(ip, tcp []byte) (f flow, ok bool) {
	f.ports = bits.RotateLeft32(binary.BigEndian.Uint32(tcp), 16)
	switch {
	case len(ip) >= ipv4Header && ip[0]>>4 == 4:
		f.addrs[0] = bits.RotateLeft64(binary.BigEndian.Uint64(ip[ipv4Source:]), 32)
	case len(ip) >= ipv6Header && ip[0]>>4 == 6:
		f.v6 = true
		for i := range f.addrs {
			f.addrs[i^2] = binary.BigEndian.Uint64(ip[ipv6Source+8*i:])
		}
	default:
		return f, false
	}
	return f, true
}

// in gives the packets to show to the stack for one that came in: itself, or one
// in its place that says the same and is acceptable, or such a one before it. It
// does not change b. With verify, b's checksum has to be right.
func (w *windows) in(b []byte, verify bool) (before, packet []byte) {
	if w.watched.Load() == 0 {
		return nil, b
	}
	var s tcpSegment
	if s.parse(b) != plain || s.flags&(flagACK|flagSYN|flagRST) != flagACK {
		return nil, b
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	low, ok := w.low[s.flow]
	if !ok {
		return nil, b
	}
	bare := len(b) == s.header && s.flags&flagFIN == 0
	ack := binary.BigEndian.Uint32(b[s.ip+tcpAck:])
	switch {
	case bare && int32(s.seq-low.next) > 0:
		// What begins before is a question whether we are there, and answered.
	case !bare && low.closed && !(low.any && int32(ack-low.acked) <= 0):
		// The data is dropped, and answered. Older news are none.
	default:
		return nil, b
	}
	if verify && s.sum(b) != 0xffff {
		return nil, b
	}
	if bare {
		return nil, s.bare(b, low.next)
	}
	low.acked, low.any = ack, true
	w.low[s.flow] = low
	return s.bare(b, low.next), b
}

// sum is the sum of a whole segment with its pseudo-header; 0xffff if its
// checksum is right.
func (s *tcpSegment) sum(b []byte) uint16 {
	from, to := addresses(b)
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber, tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice()), uint16(len(b)-s.ip))
	return checksum.Checksum(b[s.ip:], pseudo)
}

// bare makes an acknowledgment with nothing else of a segment, which begins at
// seq.
func (s *tcpSegment) bare(b []byte, seq uint32) []byte {
	b = append([]byte(nil), b[:s.header]...)
	if s.flow.v6 {
		binary.BigEndian.PutUint16(b[ipv6Length:], uint16(len(b)-ipv6Header))
	} else {
		binary.BigEndian.PutUint16(b[ipv4Length:], uint16(len(b)))
		checksum.Put(b[ipv4Checksum:], 0)
		checksum.Put(b[ipv4Checksum:], ^checksum.Checksum(b[:s.ip], 0))
	}
	tcp := b[s.ip:]
	binary.BigEndian.PutUint32(tcp[tcpSequence:], seq)
	tcp[tcpFlags] = flagACK
	binary.BigEndian.PutUint16(tcp[tcpUrgent:], 0)
	checksum.Put(tcp[tcpChecksum:], 0)
	checksum.Put(tcp[tcpChecksum:], ^s.sum(b))
	return b
}
