package tunnel

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A Way is what is known of the way that packets came by.
type Way struct {
	// Hold is how long segments behind a gap wait for what is missing, since the
	// peer will send it again; 0: not at all.
	Hold time.Duration
	// Window bounds what TCP may have sent and not seen acknowledged towards where
	// the packets came from, in bytes; 0: as the receiver says. Where losses are
	// mended below, nothing else keeps TCP from filling the queue of its packets.
	Window int
}

const (
	orderShards = 16
	// orderFlows bounds the flows that a shard knows. One that is forgotten has
	// its next gap shown to TCP.
	orderFlows = 8192
	// heldBytes bounds what waits in one flow.
	heldBytes = 8 << 20
)

// An order keeps the segments of each TCP connection in order when packets are
// lost below and will be sent again: those behind a gap wait a while for what
// is missing. So TCP sees delay and not loss.
type order struct {
	deliver func(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) // takes the reference
	shards  [orderShards]orderShard
}

type orderShard struct {
	mu     sync.Mutex
	flows  map[flow]*ordered
	closed bool
}

// ordered is one direction of a connection.
type ordered struct {
	next  uint32 // the sequence number that goes on
	held  []heldSegment
	bytes int
	scale uint8 // of the windows that its segments offer
	hold  time.Duration
	timer *time.Timer // runs while something is held
}

// A heldSegment waits behind a gap.
type heldSegment struct {
	seq, end uint32
	proto    tcpip.NetworkProtocolNumber
	pb       *stack.PacketBuffer
}

func (o *order) shard(f *flow) *orderShard {
	return &o.shards[(f.ports^f.ports>>16^uint32(f.addrs[0])^uint32(f.addrs[3]))%orderShards]
}

// take delivers a segment, or holds it for as long as hold if something before
// it is missing. It takes pb's reference over.
func (o *order) take(s *tcpSegment, end uint32, proto tcpip.NetworkProtocolNumber, pb *stack.PacketBuffer, hold time.Duration) {
	if end == s.seq && s.flags&(flagSYN|flagRST) == 0 {
		o.deliver(proto, pb) // an acknowledgement alone
		return
	}
	h := o.shard(&s.flow)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		pb.DecRef()
		return
	}
	f := h.flows[s.flow]
	switch {
	case s.flags&flagRST != 0:
		if f != nil {
			o.flush(f)
			delete(h.flows, s.flow)
		}
		o.deliver(proto, pb)
		return
	case s.flags&flagSYN != 0:
		if f != nil {
			o.flush(f)
		}
		h.add(s, end)
		o.deliver(proto, pb)
		return
	case f == nil:
		h.add(s, end)
		o.deliver(proto, pb)
		return
	}
	switch gap := int32(s.seq - f.next); {
	case gap <= 0 || len(f.held) == 0 && hold <= 0:
		o.deliver(proto, pb)
		if int32(end-f.next) > 0 {
			f.next = end
		}
		o.drain(f)
	default:
		at, _ := slices.BinarySearchFunc(f.held, s.seq, func(a heldSegment, seq uint32) int { return int(int32(a.seq - seq)) })
		f.held = slices.Insert(f.held, at, heldSegment{s.seq, end, proto, pb})
		f.bytes += pb.Size()
		if f.bytes > heldBytes {
			o.flush(f)
		} else if len(f.held) == 1 {
			o.arm(h, f, hold)
		}
	}
}

// add makes a flow known of which everything before next has come.
func (h *orderShard) add(s *tcpSegment, next uint32) {
	if h.flows == nil {
		h.flows = make(map[flow]*ordered)
	}
	if len(h.flows) >= orderFlows {
		for k, g := range h.flows {
			if len(g.held) == 0 {
				delete(h.flows, k)
				break
			}
		}
	}
	f := &ordered{next: next, scale: unknownScale}
	if s.flags&flagSYN != 0 {
		f.scale = s.scale
	}
	h.flows[s.flow] = f
}

// clamp makes the window that a segment with this TCP header offers no larger
// than window, in bytes.
func (o *order) clamp(s *tcpSegment, tcp []byte, window int) {
	if s.flags&flagSYN != 0 {
		s.scale = scaleOption(tcp)
		return
	}
	if window <= 0 {
		return
	}
	h := o.shard(&s.flow)
	h.mu.Lock()
	f := h.flows[s.flow]
	scale := uint8(unknownScale)
	if f != nil {
		scale = f.scale
	}
	h.mu.Unlock()
	if scale == unknownScale {
		return
	}
	// Not zero: that would mean something else.
	most := max(window>>scale, 1)
	if most < int(binary.BigEndian.Uint16(tcp[tcpWindow:])) {
		binary.BigEndian.PutUint16(tcp[tcpWindow:], uint16(most))
	}
}

// unknownScale is for connections whose beginning was not seen. The largest
// scale is 14 (RFC 7323, Section 2.3).
const unknownScale = 255

// scaleOption reads the option of that name from a SYN's TCP header; without it
// windows are not scaled (RFC 7323, Section 2.2).
func scaleOption(tcp []byte) uint8 {
	for i := tcpHeader; i < len(tcp); {
		switch kind := tcp[i]; {
		case kind == optionEnd:
			return 0
		case kind == optionNop:
			i++
		case i+1 >= len(tcp) || tcp[i+1] < 2 || i+int(tcp[i+1]) > len(tcp):
			return 0
		case kind == optionWindowScale && tcp[i+1] == 3:
			return min(tcp[i+2], 14)
		default:
			i += int(tcp[i+1])
		}
	}
	return 0
}

// drain delivers what goes on without a gap.
func (o *order) drain(f *ordered) {
	n := 0
	for ; n < len(f.held) && int32(f.held[n].seq-f.next) <= 0; n++ {
		e := &f.held[n]
		if int32(e.end-f.next) > 0 {
			f.next = e.end
		}
		f.bytes -= e.pb.Size()
		o.deliver(e.proto, e.pb)
	}
	f.held = slices.Delete(f.held, 0, n)
	switch {
	case len(f.held) > 0:
		f.timer.Reset(f.hold) // the next gap has its own time
	case n > 0:
		f.held = nil
		f.timer.Stop()
	}
}

// flush delivers everything, gaps or not.
func (o *order) flush(f *ordered) {
	for _, e := range f.held {
		if int32(e.end-f.next) > 0 {
			f.next = e.end
		}
		o.deliver(e.proto, e.pb)
	}
	f.held, f.bytes = nil, 0
	if f.timer != nil {
		f.timer.Stop()
	}
}

// arm ends the waiting after hold; the caller holds the shard's lock.
func (o *order) arm(h *orderShard, f *ordered, hold time.Duration) {
	f.hold = hold
	if f.timer != nil {
		f.timer.Reset(hold)
		return
	}
	f.timer = time.AfterFunc(hold, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.closed {
			o.flush(f)
		}
	})
}

// close drops what is held.
func (o *order) close() {
	for i := range o.shards {
		h := &o.shards[i]
		h.mu.Lock()
		h.closed = true
		for _, f := range h.flows {
			for _, e := range f.held {
				e.pb.DecRef()
			}
			f.held = nil
			if f.timer != nil {
				f.timer.Stop()
			}
		}
		h.flows = nil
		h.mu.Unlock()
	}
}
