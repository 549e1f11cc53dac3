package tunnel

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
)

const (
	// buckets is how many flows are told apart: FQ-CoDel's default.
	buckets = 1024
	// quantum is what a flow may send in its turn, in bytes. It is larger than
	// RFC 8290's, since packets are: a whole segment takes many turns.
	quantum = 4096
	// Rings of packets: the first size, and the largest that is kept for reuse.
	ringMin, ringKept = 8, 64
)

// flows are the flows of a Queue that have packets waiting, or had a moment
// ago. When nothing waits they hold no memory. The Queue's lock protects them.
type flows struct {
	table *[buckets]*flowQueue
	fresh flowList // came lately and have not used up their first quantum
	old   flowList
}

// A flowQueue is the packets of one flow, or of several that share a bucket.
type flowQueue struct {
	bucket  int
	ring    []Packet // its length is a power of two
	head    int      // index of the oldest packet
	count   int
	bytes   int
	deficit int        // bytes that may go before it is the others' turn
	next    *flowQueue // in its list
}

type flowList struct{ head, tail *flowQueue }

// Tables are all nil when they are given back.
var (
	tables     = sync.Pool{New: func() any { return new([buckets]*flowQueue) }}
	flowQueues = sync.Pool{New: func() any { return &flowQueue{ring: make([]Packet, ringMin)} }}
)

// waiting is how many bytes wait in a bucket.
func (s *flows) waiting(bucket int) int {
	if s.table == nil || s.table[bucket] == nil {
		return 0
	}
	return s.table[bucket].bytes
}

func (s *flows) put(bucket int, p Packet, n int) {
	if s.table == nil {
		s.table = tables.Get().(*[buckets]*flowQueue)
	}
	f := s.table[bucket]
	if f == nil {
		f = flowQueues.Get().(*flowQueue)
		f.bucket, f.deficit = bucket, quantum
		s.table[bucket] = f
		s.fresh.push(f)
	}
	if f.count == len(f.ring) {
		ring := make([]Packet, 2*len(f.ring))
		k := copy(ring, f.ring[f.head:])
		copy(ring[k:], f.ring[:f.head])
		f.ring, f.head = ring, 0
	}
	f.ring[(f.head+f.count)&(len(f.ring)-1)] = p
	f.count++
	f.bytes += n
	p.waits()
}

// turn gives the flow whose packet is next, by the rules of RFC 8290, Section
// 4.2: new flows before old ones, and none beyond its quantum. There must be a
// packet.
func (s *flows) turn() *flowQueue {
	for {
		l := &s.fresh
		if l.head == nil {
			l = &s.old
		}
		f := l.head
		switch {
		case f.deficit <= 0:
			f.deficit += quantum
			l.pop()
			s.old.push(f)
		case f.count > 0:
			return f
		case l == &s.fresh:
			// It stays known for a round, or it could come first forever.
			l.pop()
			s.old.push(f)
		default:
			l.pop()
			s.forget(f)
		}
	}
}

// longest gives the flow with the most bytes. There must be a packet.
func (s *flows) longest() *flowQueue {
	var best *flowQueue
	for _, l := range []*flowList{&s.fresh, &s.old} {
		for f := l.head; f != nil; f = f.next {
			if best == nil || f.bytes > best.bytes {
				best = f
			}
		}
	}
	return best
}

// forget gives back a flow that is in no list and empty.
func (s *flows) forget(f *flowQueue) {
	s.table[f.bucket] = nil
	if len(f.ring) <= ringKept {
		flowQueues.Put(f)
	}
}

// clear forgets all flows, which must be empty.
func (s *flows) clear() {
	if s.table == nil {
		return
	}
	for _, l := range []*flowList{&s.fresh, &s.old} {
		for l.head != nil {
			s.forget(l.pop())
		}
	}
	tables.Put(s.table)
	s.table = nil
}

func (l *flowList) push(f *flowQueue) {
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *flowList) pop() *flowQueue {
	f := l.head
	if l.head = f.next; l.head == nil {
		l.tail = nil
	}
	f.next = nil
	return f
}

func (f *flowQueue) front() Packet { return f.ring[f.head] }

func (f *flowQueue) popHead() Packet {
	p := f.ring[f.head]
	f.ring[f.head] = Packet{}
	f.head = (f.head + 1) & (len(f.ring) - 1)
	f.count--
	f.bytes -= p.Len()
	p.waited()
	return p
}

func (f *flowQueue) popTail() Packet {
	f.count--
	at := &f.ring[(f.head+f.count)&(len(f.ring)-1)]
	p := *at
	*at = Packet{}
	f.bytes -= p.Len()
	p.waited()
	return p
}

var bucketSeed = maphash.MakeSeed()

// bucket says which packets are of one flow: those with the same addresses,
// protocol and ports. Fragments, of which only the first has ports, go by the
// rest.
func (p Packet) bucket() int {
	if p.pb == nil {
		return 0
	}
	views, offset := p.pb.AsViewList()
	if views.Front() == nil || views.Front().Size() < offset {
		return 0
	}
	var key [37]byte // protocol, addresses, ports
	b, n := views.Front().AsSlice()[offset:], 1
	switch {
	case len(b) >= ipv4Header && b[0]>>4 == 4:
		key[0] = b[ipv4Protocol]
		n += copy(key[n:], b[ipv4Source:ipv4Header])
		if binary.BigEndian.Uint16(b[ipv4Fragment:])&0x3fff != 0 {
			key[0] = 0
		}
		b = b[min(len(b), int(b[0]&0xf)*4):]
	case len(b) >= ipv6Header && b[0]>>4 == 6:
		key[0] = b[ipv6NextHeader]
		n += copy(key[n:], b[ipv6Source:ipv6Header])
		b = b[ipv6Header:]
	default:
		return 0
	}
	if (key[0] == protocolTCP || key[0] == protocolUDP) && len(b) >= 4 {
		n += copy(key[n:], b[:4])
	}
	return int(maphash.Bytes(bucketSeed, key[:n]) % buckets)
}
