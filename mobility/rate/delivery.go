package rate

import (
	"math"
	"time"
)

const (
	// bestRounds is how many round trips a rate is remembered.
	bestRounds = 10
	// shortestFor is how long a shortest round trip is believed, and probeFor how
	// long little is on the way, to measure it anew.
	shortestFor = 10 * time.Second
	probeFor    = 150 * time.Millisecond

	// fallen is the part of the known rate below which the path has changed, if
	// the round trip has grown too, or packets are lost.
	fallen = 0.65

	// allArrives is the part of what left that arrives where the path is not what
	// limits it; the rest is lost, or still on its way.
	allArrives = 0.85
	// stalled is how long without any report is a pause of one end or the path.
	stalled = 40 * time.Millisecond
)

// A Report is what the receiver told.
type Report struct {
	SPI     uint32
	Highest uint64        // sequence number that has arrived
	Bytes   uint64        // received in all
	Arrived uint32        // when Highest arrived: microseconds of the receiver's clock
	Ago     time.Duration // since then, when the report left
	Lost    int           // bytes that it showed to be lost, by the caller's rule
	Undone  int           // bytes that have come though they counted as lost before
}

// Report takes a report that came at now.
func (c *Control) Report(now time.Time, r Report) {
	d := c.sent.find(r.SPI, r.Highest)
	if d == nil {
		return
	}
	passed, here := d.bytes, d.bytes > c.ignored || c.ignored == 0
	if r.Highest <= d.last {
		passed -= uint64(float64(d.size) * float64(d.last-r.Highest) / float64(d.last-d.first+1))
		if rtt := now.Sub(d.at) - r.Ago; rtt > 0 && here {
			c.roundTrip(now, rtt)
		}
	}
	held := c.heard && c.Room() <= 0
	c.flying = int(c.bytes - max(passed, c.moved))
	if held && c.next.Before(now) {
		c.next = now // the path had enough until now, the sender was not late
	}
	if r.Bytes < c.mark.delivered || d.bytes <= c.moved && c.moved > 0 {
		return // older than the last, or about the path before
	}
	if !c.heard {
		c.heard, c.next = true, now
	}
	got := r.Bytes - c.mark.delivered
	c.arrived += int(min(got, math.MaxInt32))
	c.lost = max(c.lost+r.Lost-r.Undone, 0)
	c.yield.undo(float64(r.Undone))
	c.congestion(now, d, float64(got), float64(r.Lost))
	c.busy = c.busy || !d.limited
	c.idle = c.idle || d.limited || d.mark.fresh || !here
	if d.mark.delivered >= c.roundEnd {
		// One sample for each round: shorter ones scatter, and the highest of them
		// would be too high.
		sent := d.at.Sub(c.began.firstSent)
		took := max(time.Duration(r.Arrived-c.began.arrived)*time.Microsecond, sent)
		if !c.began.firstSent.IsZero() && took >= c.shortest*3/4 && took > 0 {
			got := r.Bytes - c.began.delivered
			if (d.late-c.began.late)*16 > sent && float64(got) >= allArrives*float64(d.bytes-c.began.sent) {
				// All that left has arrived, and more could have left: the sender was
				// slow, not the path.
				c.idle, c.busy = true, false
			}
			c.delivered(float64(got)/took.Seconds(), c.idle)
		}
		c.began = mark{delivered: r.Bytes, arrived: r.Arrived, firstSent: d.at, sent: d.bytes, late: d.late}
		c.round++
		c.roundEnd = r.Bytes
		c.newRound(now)
	}
	if now.Sub(c.told) > max(2*Interval(c.shortest), stalled) {
		// Nothing was heard for a while: what arrives now has waited somewhere
		// where no packets are lost, so it says nothing yet of the rate.
		c.recent.n, c.low = 0, time.Time{}
	}
	c.told = now
	c.recent.add(r.Arrived, r.Bytes, d.limited || d.late > c.mark.late)
	if c.contended && here {
		// Others take what is not tried for: every sample counts, as theirs do.
		if rate, ok := c.recent.rate(c.shortest); ok {
			c.delivered(rate, true)
		}
	}
	c.fall(now)
	c.mark = mark{delivered: r.Bytes, arrived: r.Arrived, firstSent: d.at, sent: d.bytes, late: d.late}
	c.advance(now)
	c.sent.forget(r.SPI, r.Highest)
}

func (c *Control) roundTrip(now time.Time, rtt time.Duration) {
	if c.smooth == 0 {
		c.smooth = rtt
	}
	c.smooth += (rtt - c.smooth) / 8
	c.trip = rtt
	if c.lately == 0 || rtt < c.lately {
		c.lately = rtt
	}
	if c.shortest == 0 || rtt <= c.shortest || c.phase == probing && now.Sub(c.measured) > shortestFor {
		c.shortest, c.measured = rtt, now
	}
}

// delivered takes a sample of the rate.
func (c *Control) delivered(rate float64, limited bool) {
	rate = min(rate, maxRate)
	if limited && rate < c.bw {
		return
	}
	s := &c.best[c.round%bestRounds]
	if s.round != c.round || rate > s.rate {
		*s = sample{c.round, rate}
	}
	c.bw = c.max(bestRounds)
}

// max is the highest rate of the last rounds.
func (c *Control) max(rounds int) (best float64) {
	for _, s := range c.best {
		if s.round > c.round-rounds {
			best = max(best, s.rate)
		}
	}
	return best
}

// fall follows a rate that has dropped sooner than the highest of the last
// rounds would: with the old one the queue grows all the while.
func (c *Control) fall(now time.Time) {
	span := max(c.shortest, 40*time.Millisecond)
	rate, ok := c.recent.rate(span)
	known := c.bw
	if y := c.yield.most; y > 0 && c.smooth > 0 {
		known = min(known, y/c.smooth.Seconds()) // it is we who send less
	}
	if c.contended {
		known *= fallen * fallen
	}
	if !ok || c.phase != steady || rate >= fallen*known {
		c.low = time.Time{}
		return
	}
	// All of a span must be low, or the rate before has its part in it.
	if c.low.IsZero() {
		c.low = now
	}
	if now.Sub(c.low) < span {
		return
	}
	if c.lately < c.shortest*3/2 && c.smooth < c.shortest*3/2 && c.lost*20 < c.arrived {
		return // it is we who send less
	}
	c.best = [bestRounds]sample{}
	c.best[c.round%bestRounds] = sample{c.round, rate}
	c.bw, c.before, c.ignored = rate, rate, c.bytes
	c.yield = yield{} // that was of another rate
	c.phase, c.step, c.since, c.fell = drain, 0, now, true
}
