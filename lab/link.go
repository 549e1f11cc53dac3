package lab

import (
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"time"
)

// The MTUs of links: usual, and without limit.
const (
	defaultMTU   = 1500
	maxMTU       = 1 << 20
	defaultQueue = 256 << 10
)

// A Link describes one direction of a network's access. The zero value is
// perfect, with an MTU of 1,500.
type Link struct {
	Delay  time.Duration // one way
	Jitter time.Duration // up to this much is added, evenly; order is kept

	Loss      float64 // the part of packets that is lost, 0 to 1
	Burst     int     // so many are lost in a row; 0 is one by one
	Duplicate float64 // the part of packets that arrives twice
	Reorder   float64 // the part of packets that takes twice Delay (and at least a millisecond more), being overtaken

	// Rate is in bytes of UDP and TCP payload a second (headers are free, so
	// that a test can state exact times); 0 is without limit.
	Rate int
	// Queue is how many bytes may wait for a Rate; UDP beyond is lost, TCP is
	// held by its window. 0 is 256 KiB.
	Queue int

	// MTU is in bytes of IP packet; 0 is 1,500. UDP beyond fails with EMSGSIZE
	// on the sender's own link and vanishes on others; TCP is clamped.
	MTU int
}

// A link is a Link in use. Guarded by the Internet's lock.
type link struct {
	Link
	in        *Internet
	network   string
	direction string
	busy      time.Time // when what waits will have been sent
	last      time.Time // when the last one arrives
	luck      map[flow]*luck
}

// luck is one flow's.
type luck struct {
	*rand.Rand
	losing int // packets that follow a lost one
}

type flow struct {
	proto    Proto
	src, dst netip.AddrPort
}

func newLink(in *Internet, network, direction string, l Link) *link {
	if l.MTU == 0 {
		l.MTU = defaultMTU
	}
	if l.Queue == 0 {
		l.Queue = defaultQueue
	}
	return &link{Link: l, in: in, network: network, direction: direction, luck: make(map[flow]*luck)}
}

// rand gives each flow luck of its own, so that two goroutines that run in
// either order see the same.
func (l *link) rand(p *packet) *luck {
	f := flow{p.proto, p.src, p.dst}
	r := l.luck[f]
	if r == nil {
		h := fnv.New64a()
		h.Write([]byte(l.network + " " + l.direction + " " + p.proto.String() + " " + p.src.String() + " " + p.dst.String()))
		r = &luck{Rand: rand.New(rand.NewPCG(l.in.seed, h.Sum64()))}
		l.luck[f] = r
	}
	return r
}

// cross sends p over the link, and calls next with it at the other end. The
// caller holds the lock and flushes.
func (l *link) cross(p *packet, next func(*packet)) {
	if p.proto == UDP && p.size() > l.MTU {
		l.in.drop(p, l.network, ByMTU)
		return
	}
	now := time.Now()
	arrival := now
	if l.Rate > 0 {
		start := now
		if l.busy.After(now) {
			start = l.busy
		}
		waiting := int(start.Sub(now).Seconds() * float64(l.Rate))
		if p.proto == UDP && waiting+len(p.payload) > l.Queue {
			l.in.drop(p, l.network, ByQueue)
			return
		}
		l.busy = start.Add(time.Duration(int64(len(p.payload)) * int64(time.Second) / int64(l.Rate)))
		arrival = l.busy
	}
	arrival = arrival.Add(l.Delay)
	copies := 1
	overtaken := false
	if l.Jitter > 0 || l.Loss > 0 || l.Duplicate > 0 || l.Reorder > 0 {
		r := l.rand(p)
		// All four are drawn for each packet, so that changing one leaves the
		// luck with the others as it was.
		jitter, loss, duplicate, reorder := r.Float64(), r.Float64(), r.Float64(), r.Float64()
		switch {
		case r.losing > 0:
			r.losing--
			l.in.drop(p, l.network, ByLoss)
			return
		case loss < l.Loss/float64(max(l.Burst, 1)):
			r.losing = max(l.Burst, 1) - 1
			l.in.drop(p, l.network, ByLoss)
			return
		}
		arrival = arrival.Add(time.Duration(jitter * float64(l.Jitter)))
		if duplicate < l.Duplicate {
			copies = 2
			l.in.trace(p, l.network, Duplicated, "")
		}
		overtaken = reorder < l.Reorder
	}
	if overtaken {
		arrival = arrival.Add(max(l.Delay, time.Millisecond))
	} else {
		if arrival.Before(l.last) {
			arrival = l.last
		}
		l.last = arrival
	}
	for range copies {
		q := *p // addresses are rewritten on the way
		if !arrival.After(now) {
			next(&q)
			continue
		}
		l.in.at(arrival, func() { next(&q) })
	}
}
