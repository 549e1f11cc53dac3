package rate

import (
	"time"
)

const (
	// startGain doubles the rate each round trip: 2/ln 2 of BBR's Startup.
	startGain = 2.885
	// againGain is for a rate that was known before.
	againGain = 1.6
	// fullRounds is how many round trips without a quarter's growth end Startup.
	fullRounds = 3
	fullGrowth = 1.25

	// drained is what of the product may be on the way when there is no queue:
	// some of it has arrived and is not reported yet.
	drained = 1.1
	// contendedRounds with a queue all the time show that others fill it.
	contendedRounds = 6
	// alone is the part of the product that stays on the way when there was a loss
	// in a queue of our own.
	alone = 0.95
	// modest is below their rate, as the highest sample is above it.
	modest = 0.98
	// grown by as much while more is tried, the rate is not known any more.
	grown = 1.15
)

// cycle is BBR's: once in eight round trips more is tried, and its queue drained.
// The rest is a little below the rate, as the highest of several samples is a
// little above it.
var cycle = [...]float64{1.25, 0.75, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99}

type phase int

const (
	startup phase = iota
	drain
	steady
	probing // of the shortest round trip
)

// congestion yields to others when more is lost where there is a queue.
func (c *Control) congestion(now time.Time, d *departure, got, lost float64) {
	y := &c.yield
	y.grow(now, max(c.smooth, near))
	if c.phase != startup && c.phase != probing {
		y.count(c.queue(), got, lost)
	}
	if lost == 0 || d.limited || c.phase == startup && !c.again || c.phase == drain || now.Before(y.deaf) || d.at.Before(y.ignore) || !y.congested() {
		return
	}
	least := float64(leastBytes)
	if !c.contended {
		// Nobody else fills the queue: what was lost is too much, and no more.
		least = max(least, alone*c.bw*c.smooth.Seconds())
	}
	y.reduce(now, float64(c.flying), least)
	y.ignore = now.Add(c.shortest / 2)
}

// queue holds if the last packet that is known of has waited.
func (c *Control) queue() bool { return c.trip > c.shortest*11/10+2*time.Millisecond }

// trying holds while more is tried, on a path that nobody else seems to fill.
func (c *Control) trying() bool {
	return c.phase == steady && c.step == 0 && !c.contended && !c.queue()
}

func (c *Control) newRound(now time.Time) {
	queue := c.lately > c.shortest*5/4
	busy := c.busy
	switch standing := c.lately > c.shortest*9/8+2*time.Millisecond; {
	case c.phase == probing || c.phase == startup && !c.again:
	case standing && busy:
		c.queued++
	case !standing:
		c.queued = 0
	}
	c.yield.round()
	c.contended = c.queued >= contendedRounds
	c.lately, c.busy, c.idle = 0, false, false
	c.lost, c.arrived = c.lost/2, c.arrived/2
	if c.phase != startup || c.bw == 0 {
		return
	}
	if c.bw >= c.full*fullGrowth {
		c.full, c.fullFor = c.bw, 0
		return
	}
	if !busy {
		return
	}
	if c.fullFor++; c.fullFor >= fullRounds || queue && c.fullFor >= fullRounds-1 {
		c.phase, c.since = drain, now
	}
}

// advance goes through the phases.
func (c *Control) advance(now time.Time) {
	switch c.phase {
	case drain:
		c.recent.n = 0 // what leaves now is little
		if float64(c.flying) > c.product()*drained {
			return
		}
		c.phase, c.step, c.since, c.before = steady, 2, now, 0
		c.yield.ignore = now.Add(c.shortest / 2) // that was too fast is known
		if c.fell {
			c.fell, c.step, c.before = false, 0, c.bw // it may take more again
		}
	case steady:
		if now.Sub(c.measured) > shortestFor && c.shortest > near {
			c.phase, c.since = probing, now
			return
		}
		age, flying := now.Sub(c.since), float64(c.flying)
		switch gain := cycle[c.step]; {
		case gain < 0.9 && flying <= c.product()*drained:
			c.turn(now) // drained sooner
		case age < c.shortest:
		case gain > 1 && age < 2*c.shortest && flying < gain*c.product():
			// It has not been tried yet.
		case gain < 0.9 && !c.contended && age < 4*c.shortest && flying > c.product()*drained:
		default:
			c.turn(now)
		}
	case probing:
		if now.Sub(c.since) > probeFor+c.smooth {
			if now.Sub(c.measured) > shortestFor {
				c.measured = now
			}
			c.phase, c.step, c.since = steady, 2, now
		}
	}
}

// turn goes on in the cycle.
func (c *Control) turn(now time.Time) {
	c.step, c.since = (c.step+1)%len(cycle), now
	switch {
	case c.step == 0:
		c.before = c.bw
	case c.step == 3 && !c.contended && c.before > 0 && c.bw > c.before*grown:
		// The path takes more than was known: find out soon how much.
		c.phase, c.again, c.full, c.fullFor = startup, true, c.bw, 0
		c.yield.most = 0
	}
}
