package rate

import (
	"math"
	"time"
)

const (
	// capGain is how much of the product of rate and round trip may be on the
	// way: reports come late and in lumps.
	capGain = 2

	// near is the round trip below which nothing is paced: timers are not
	// finer than what there would be to pace.
	near = 3 * time.Millisecond
	// nearBytes may be on the way there. What is more waits in the buffer of the
	// receiving socket, behind it what is small and in a hurry, and has left the
	// processor's caches when it is read.
	nearBytes = 2 << 20
)

// Wait is how long after now the next packets may leave, if Room is left then.
func (c *Control) Wait(now time.Time) time.Duration {
	if !c.heard {
		return 0
	}
	return c.next.Sub(now)
}

// Room is how many more bytes may be on the way; not more than 0: none before a
// report. While no report has come at all it is without limit: the peer may
// know nothing of them.
func (c *Control) Room() int {
	switch {
	case !c.heard:
		return math.MaxInt
	case c.unlimited():
		return max(nearBytes, int(capGain*c.product())) - c.flying
	}
	return c.limit() - c.flying
}

// Piece is how many bytes should leave together, at least one packet.
func (c *Control) Piece() int {
	rate := c.pace()
	if !c.heard || math.IsInf(rate, 1) {
		return math.MaxInt
	}
	return int(min(max(rate/1000, 2800), 64<<10))
}

// Window is how many bytes one connection inside need have under way to fill the
// path, while what is lost is sent again too; 0: that is not known.
func (c *Control) Window() int {
	if !c.heard || c.unlimited() || c.bw == 0 || c.shortest == 0 {
		return 0
	}
	if c.phase == startup {
		return c.limit() + spareBytes
	}
	// In a move nothing is acknowledged for a round trip, and what is acknowledged
	// then left a round trip before: twice what is usual is under way.
	w := 2.25 * c.product()
	// What comes behind a lost packet is acknowledged a round trip later, or
	// several if it is lost again.
	switch {
	case c.lost*20 > c.arrived:
		w += 6 * c.product()
	case c.lost*1000 > c.arrived:
		w += 3 * c.product()
	}
	return int(w+c.bw*spareTime.Seconds()) + spareBytes
}

// What waits above the path is this long, and two of the largest segments.
const (
	spareTime  = 30 * time.Millisecond
	spareBytes = 128 << 10
)

// product is what the path holds without a queue, in bytes.
func (c *Control) product() float64 {
	return max(c.bw*c.shortest.Seconds(), leastBytes)
}

// unlimited says that packets are not held back by the clock.
func (c *Control) unlimited() bool { return c.shortest > 0 && c.shortest < near }

// limit is how many bytes may be on the way.
func (c *Control) limit() int {
	if c.bw == 0 || c.shortest == 0 {
		return initialBytes
	}
	gain := float64(capGain)
	switch c.phase {
	case startup:
		gain = startGain
	case probing:
		gain = 0.5
	}
	least := float64(leastBytes)
	if c.phase == startup && !c.again {
		least = initialBytes
	}
	limit := gain*c.product() + c.bw*Interval(c.shortest).Seconds()
	if y := c.yield.most; y > 0 && c.phase != startup && !c.trying() {
		// A report tells what was on the way; more leaves until the next.
		y *= 1 + float64(Interval(c.shortest))/float64(c.smooth)
		if c.contended && c.phase == steady {
			limit *= 2
		}
		limit = min(limit, y)
	}
	return int(max(limit, least))
}

// pace is how fast packets leave, in bytes a second.
func (c *Control) pace() float64 {
	if c.unlimited() {
		return math.Inf(1)
	}
	gain := 1.0
	switch c.phase {
	case startup:
		if c.again {
			return max(againGain*c.bw, minRate)
		}
		if c.smooth == 0 {
			return math.Inf(1)
		}
		return startGain * max(c.bw, initialBytes/c.smooth.Seconds())
	case drain:
		gain = 1 / startGain
	case steady:
		gain = cycle[c.step]
	}
	rate := gain * c.bw * (1 + c.noise())
	if c.contended {
		rate *= modest
	}
	if y := c.yield.most; y > 0 && c.smooth > 0 && !c.trying() {
		bound := 1.1 * y / c.smooth.Seconds()
		if c.contended && c.phase == steady {
			rate = max(rate, bound)
		}
		rate = min(rate, bound)
	}
	return max(rate, minRate)
}

// noise is the part that is lost, though there is no queue: what leaves has to
// be that much more for the same to be delivered.
func (c *Control) noise() float64 {
	if c.arrived == 0 || c.smooth > c.shortest*11/10+2*time.Millisecond {
		return 0
	}
	return min(float64(c.lost)/float64(c.arrived), 0.15)
}

// A receiver reports every quarter of a round trip, within these bounds.
const (
	minInterval = 5 * time.Millisecond
	maxInterval = 25 * time.Millisecond
)

// Interval is how far apart reports are on a path with this round trip.
func Interval(roundTrip time.Duration) time.Duration {
	return min(max(roundTrip/4, minInterval), maxInterval)
}
