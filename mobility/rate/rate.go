// Package rate finds out how fast a path takes packets, from what their
// receiver reports, and says when the next ones may leave.
//
// The model is BBR's (draft-cardwell-iccrg-bbr-congestion-control): the path
// has a rate, the most that was delivered lately, and a shortest round trip;
// what is on the way shall be about their product. Loss alone says nothing: a
// radio link loses packets however slowly one sends. Loss with a queue does; see
// yield. A Control is a state machine: it
// takes the time, keeps no timers and does no I/O.
package rate

import (
	"math"
	"time"
)

const (
	// initialBytes may be on the way while nothing is known.
	initialBytes = 64 << 10
	// minRate keeps a path usable on which nothing is delivered, in bytes a
	// second.
	minRate = 16 << 10
	// maxRate is the highest believed, 100 Gbit/s.
	maxRate = 12.5e9
	// leastBytes may always be on the way.
	leastBytes = 8 << 10

	// burst is how far the clock may lag behind after a pause: what timers cost.
	burst = 2 * time.Millisecond
	// lagBurst is the most that it may while something waits all the time: on a
	// busy machine the sender's turn comes late, and what it missed would be lost
	// to the path. It is no more than a quarter of a round trip.
	lagBurst = 25 * time.Millisecond
)

// A Control controls what leaves by one path. The zero value is not ready; see
// New. It is for one goroutine at a time.
type Control struct {
	sent  departures
	bytes uint64 // sent in all
	mark  mark
	heard bool // a report has come

	moved    uint64 // what left before these bytes were sent left by another path
	phase    phase
	since    time.Time // of the phase, or the step of the cycle
	step     int
	round    int
	roundEnd uint64 // delivered, then the next round begins

	best     [bestRounds]sample // by round
	bw       float64            // bytes a second; 0: unknown
	low      time.Time          // since when less is delivered
	told     time.Time          // when the last report came
	fell     bool               // the rate, lately
	ignored  uint64             // what left before these bytes were sent measures the rate before
	again    bool               // Startup is not the first
	full     float64            // that ended the last growth
	before   float64            // when more was tried last
	fullFor  int
	recent   window
	shortest time.Duration // 0: unknown
	measured time.Time     // when shortest was
	lately   time.Duration // the shortest of this round
	smooth   time.Duration

	began         mark // of this round
	busy, idle    bool // something, or nothing, waited in this round
	lost, arrived int  // bytes of the last rounds

	queued    int  // rounds in a row without a moment in which there was no queue
	contended bool // others hold the queue

	yield yield
	trip  time.Duration // the last

	flying int           // bytes, by the last report
	next   time.Time     // the next bytes may leave
	waits  bool          // something waited when the last bytes left
	late   time.Duration // that the path stood idle while something waited, in all
}

type sample struct {
	round int
	rate  float64
}

// New makes a Control for a path with about this round trip; zero for unknown.
func New(now time.Time, roundTrip time.Duration) *Control {
	return &Control{since: now, smooth: roundTrip}
}

// Move makes a Control for a path with about this round trip that takes over
// from c's, which must not be used any more. It begins with the rate that was
// found there, as nothing better is known, and knows what left before.
func (c *Control) Move(now time.Time, roundTrip time.Duration) *Control {
	n := &Control{
		since: now, smooth: roundTrip, sent: c.sent, bytes: c.bytes, ignored: c.bytes, moved: c.bytes,
		mark: mark{delivered: c.mark.delivered, arrived: c.mark.arrived},
	}
	n.best[0], n.bw = sample{rate: c.bw}, c.bw
	if c.phase != startup || c.again {
		n.phase, n.step = steady, 2
	}
	return n
}

// Sent notes that packets with the sequence numbers from first to last of an SA
// left at now, n bytes in all. Limited says that nothing more waited: how fast
// they are delivered then says nothing of the path.
func (c *Control) Sent(now time.Time, spi uint32, first, last uint64, n int, limited bool) {
	c.bytes += uint64(n)
	m := c.mark
	if c.flying == 0 || m.firstSent.IsZero() {
		// How long the link was idle before is not the path's doing.
		m.fresh, m.firstSent = true, now
		c.mark.firstSent = now
	}
	c.flying += n
	rate := c.pace()
	if !math.IsInf(rate, 1) {
		lag := burst
		if c.waits {
			lag = min(max(c.shortest/4, burst), lagBurst)
		}
		if floor := now.Add(-lag); c.next.Before(floor) {
			if c.waits {
				c.late += floor.Sub(c.next)
			}
			c.next = floor
		}
		c.next = c.next.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	}
	c.waits = !limited
	c.sent.add(departure{spi: spi, first: first, last: last, at: now, bytes: c.bytes, size: n, late: c.late, limited: limited, mark: m})
}

// Rate is the path's rate in bytes a second; 0 while it is unknown.
func (c *Control) Rate() float64 { return c.bw }

// RoundTrip is the shortest round trip of late; 0 while it is unknown.
func (c *Control) RoundTrip() time.Duration { return c.shortest }

// Reported holds once a report has come.
func (c *Control) Reported() bool { return c.heard }

// Flying is how many bytes are on the way, by what is known.
func (c *Control) Flying() int { return c.flying }

// Lapse counts all that is on the way as lost: no report has come for long.
func (c *Control) Lapse() { c.flying = 0 }

// SentAt is when the packet with this number left; the zero time if that is not
// known: it is forgotten, or has not left.
func (c *Control) SentAt(spi uint32, seq uint64) (at time.Time, forgotten bool) {
	d := c.sent.find(spi, seq)
	switch {
	case d == nil:
		return time.Time{}, true
	case seq > d.last:
		return time.Time{}, false
	}
	return d.at, false
}

// Last is when the newest packet left, and its number; ok is false if none has.
func (c *Control) Last() (spi uint32, seq uint64, at time.Time, ok bool) {
	d := c.sent.newest()
	if d == nil {
		return 0, 0, time.Time{}, false
	}
	return d.spi, d.last, d.at, true
}
