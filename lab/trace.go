package lab

import (
	"fmt"
	"net/netip"
	"time"
)

// A Proto is what a packet carries, as firewalls and traces tell it.
type Proto uint8

// The protocols of the laboratory.
const (
	UDP  Proto = iota + 1
	TCP        // one segment
	ICMP       // "nobody listens here"; source and destination are of the packet it answers, swapped
)

// String gives the protocol's name in lower case.
func (p Proto) String() string {
	switch p {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	case ICMP:
		return "icmp"
	}
	return "unknown"
}

// A Fate is what became of a packet at some place.
type Fate uint8

// The fates. A packet is Sent once, and Delivered or Dropped at the end;
// Duplicated says that a link made a second packet of it, which then has an end
// of its own.
const (
	Sent Fate = iota + 1
	Delivered
	Dropped
	Duplicated
)

// String gives the fate in lower case.
func (f Fate) String() string {
	switch f {
	case Sent:
		return "sent"
	case Delivered:
		return "delivered"
	case Dropped:
		return "dropped"
	case Duplicated:
		return "duplicated"
	}
	return "unknown"
}

// Why packets are dropped.
const (
	ByLoss     = "loss"            // a lossy link
	ByQueue    = "queue full"      // the queue before a link with a rate
	ByMTU      = "too big"         // for a link further on
	ByFirewall = "firewall"        // verdict Drop or Reset
	ByNAT      = "nat"             // no mapping, or not from where the mapping points
	ByRoute    = "no route"        // no network has the destination
	ByAddress  = "no such address" // the network has nobody there, any more
	ByPort     = "port closed"     // nobody listens
	BySocket   = "socket full"     // the reader is too slow
	BySource   = "source is gone"  // the sending host lost the address
)

// payloadSeen is how much of a payload an Event shows.
const payloadSeen = 64

// An Event tells what became of a packet.
type Event struct {
	Time     time.Time
	ID       uint64 // of the packet; duplicates share it
	Proto    Proto
	Src, Dst netip.AddrPort // as they are at that place
	Size     int            // bytes of UDP or TCP payload
	Where    string         // the host's or the network's name
	Fate     Fate
	Reason   string // one of the By constants when dropped
	Flags    string // TCP: the letters of SYN, FIN, RST, ACK that are set, such as "SA"
	Payload  []byte // the first bytes, up to 64; read only
}

// String gives the event on one line.
func (e Event) String() string {
	s := fmt.Sprintf("#%d %s %s > %s %d bytes %s at %s", e.ID, e.Proto, e.Src, e.Dst, e.Size, e.Fate, e.Where)
	if e.Flags != "" {
		s += " [" + e.Flags + "]"
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

type tracer struct{ f func(Event) }

// Trace has f called for each packet that is sent, delivered or dropped, in
// order, until stop is called. f runs with the laboratory's lock held: it must
// return at once and call nothing of the laboratory.
func (in *Internet) Trace(f func(Event)) (stop func()) {
	in.lock()
	defer in.mu.Unlock()
	t := &tracer{f}
	in.traces = append(in.traces, t)
	return func() {
		in.lock()
		defer in.mu.Unlock()
		for i, u := range in.traces {
			if u == t {
				in.traces = append(in.traces[:i:i], in.traces[i+1:]...)
				return
			}
		}
	}
}

// A Recording keeps what Trace tells.
type Recording struct {
	in     *Internet
	events []Event // guarded by in.mu
}

// Record keeps all events from now on.
func (in *Internet) Record() *Recording {
	r := &Recording{in: in}
	in.Trace(func(e Event) { r.events = append(r.events, e) })
	return r
}

// Events are those recorded so far for which keep reports true; nil keeps all.
func (r *Recording) Events(keep func(Event) bool) []Event {
	r.in.lock()
	defer r.in.mu.Unlock()
	var es []Event
	for _, e := range r.events {
		if keep == nil || keep(e) {
			es = append(es, e)
		}
	}
	return es
}

// trace tells the tracers about p. The caller holds in.mu.
func (in *Internet) trace(p *packet, where string, f Fate, reason string) {
	if len(in.traces) == 0 {
		return
	}
	e := Event{
		Time: time.Now(), ID: p.id, Proto: p.shownProto(), Src: p.src, Dst: p.dst,
		Size: len(p.payload), Where: where, Fate: f, Reason: reason,
		Flags:   p.flags(),
		Payload: p.payload[:min(len(p.payload), payloadSeen)],
	}
	for _, t := range in.traces {
		t.f(e)
	}
}

// drop tells that p ends here.
func (in *Internet) drop(p *packet, where, reason string) { in.trace(p, where, Dropped, reason) }

// A Clock counts time in round trips from a start on.
type Clock struct {
	Start time.Time
	Round time.Duration // one round trip
}

// NewClock starts a Clock now; round is one round trip.
func NewClock(round time.Duration) Clock { return Clock{time.Now(), round} }

// Rounds is how many round trips have passed since the start.
func (c Clock) Rounds() float64 { return Rounds(time.Since(c.Start), c.Round) }

// At is how many round trips after the start t is.
func (c Clock) At(t time.Time) float64 { return Rounds(t.Sub(c.Start), c.Round) }

// Rounds gives d in round trips of length r.
func Rounds(d, r time.Duration) float64 { return float64(d) / float64(r) }
