// Package rival models how the TCP of common systems shares a link: senders
// with CUBIC (RFC 9438) and with BBR
// (draft-cardwell-iccrg-bbr-congestion-control-00) that tests put beside godwit.
//
// A Sender is a state machine: it takes the time, and says how many packets may
// leave. What it sends has no content and is never sent again: a lost packet
// counts as if its bytes went with the next one.
package rival

import (
	"math"
	"time"
)

const (
	// initialWindow is in packets, RFC 6928.
	initialWindow = 10
	// reordered is how many later packets show that one is lost (RFC 6675,
	// Section 2).
	reordered = 3
	// silence is how long nothing is acknowledged until all counts as lost.
	silence = time.Second
)

// A Sender has always something to send, in packets of one size.
type Sender struct {
	control control
	seq     uint64 // of the last packet
	flight  []flying
	next    time.Time // no packet before, where they are paced
	heard   time.Time

	delivered   uint64    // packets
	deliveredAt time.Time // the last of them
}

// control is a congestion control.
type control interface {
	// acked takes the news that packets have arrived, or are lost.
	acked(now time.Time, a news)
	// window is how many packets may be on the way.
	window() float64
	// rate is how many packets a second may leave; infinite if only the window
	// counts.
	rate() float64
}

// flying is a packet on the way, with what was delivered when it left.
type flying struct {
	seq         uint64
	at          time.Time
	delivered   uint64
	deliveredAt time.Time
	arrived     bool // or lost
}

// news are what one acknowledgement told.
type news struct {
	packet    flying        // that has arrived
	roundTrip time.Duration // of it
	lost      int           // packets that it showed to be lost
	newest    uint64        // of those
	flying    int           // still on the way
	sent      uint64        // the last packet that has left
	delivered uint64        // in all
}

// NewCubic makes a sender with CUBIC.
func NewCubic() *Sender { return &Sender{control: newCubic()} }

// NewBBR makes a sender with BBR, version 1.
func NewBBR() *Sender { return &Sender{control: newBBR()} }

// Ready is how many packets may leave now.
func (s *Sender) Ready(now time.Time) int {
	if len(s.flight) > 0 && now.Sub(s.heard) > silence {
		s.control.acked(now, news{lost: len(s.flight), newest: s.seq, sent: s.seq, delivered: s.delivered})
		s.flight, s.heard = s.flight[:0], now
	}
	room := int(s.control.window()) - len(s.flight)
	if r := s.control.rate(); room > 0 && !math.IsInf(r, 1) {
		if now.Before(s.next) {
			return 0
		}
		// Common systems let as much leave together as passes in a millisecond.
		room = min(room, max(2, int(r/1000)))
	}
	return max(room, 0)
}

// Send numbers a packet that leaves now. Ready must have allowed it.
func (s *Sender) Send(now time.Time) (seq uint64) {
	if len(s.flight) == 0 {
		s.heard, s.deliveredAt = now, now
	}
	if r := s.control.rate(); !math.IsInf(r, 1) {
		// It may be late by as much as timers are.
		if floor := now.Add(-2 * time.Millisecond); s.next.Before(floor) {
			s.next = floor
		}
		s.next = s.next.Add(time.Duration(float64(time.Second) / r))
	}
	s.seq++
	s.flight = append(s.flight, flying{s.seq, now, s.delivered, s.deliveredAt, false})
	return s.seq
}

// Acked takes the news that the packet with this number has arrived. Packets
// must not overtake one another by more than two.
func (s *Sender) Acked(now time.Time, seq uint64) {
	n := news{sent: s.seq}
	found, done := false, 0 // of the flight's beginning, done are settled
	for i := range s.flight {
		f := &s.flight[i]
		if f.seq > seq {
			break
		}
		switch {
		case f.arrived:
		case f.seq == seq:
			n.packet, n.roundTrip, found, f.arrived = *f, now.Sub(f.at), true, true
		case f.seq+reordered <= seq:
			n.lost, n.newest, f.arrived = n.lost+1, f.seq, true
		}
		if f.arrived && done == i {
			done++
		}
	}
	s.flight, s.heard = s.flight[done:], now
	if !found {
		return // it counted as lost
	}
	s.delivered++
	s.deliveredAt = now
	n.flying, n.delivered = len(s.flight), s.delivered
	s.control.acked(now, n)
}
