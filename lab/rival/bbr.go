package rival

import (
	"time"
)

const (
	bbrHighGain  = 2.885
	bbrRounds    = 10               // of the highest rate
	bbrMinRTT    = 10 * time.Second // the shortest round trip is believed
	bbrProbeRTT  = 200 * time.Millisecond
	bbrLeast     = 4    // packets
	bbrMargin    = 0.99 // common systems pace a hundredth below
	bbrCapGain   = 2
	bbrFullRound = 3
)

var bbrCycle = [...]float64{1.25, 0.75, 1, 1, 1, 1, 1, 1}

type bbrState int

const (
	bbrStartup bbrState = iota
	bbrDrain
	bbrSteady
	bbrProbing
)

// bbr is BBR's first version, which common systems have.
type bbr struct {
	state  bbrState
	rates  [bbrRounds]float64 // packets a second, by round
	round  int
	next   uint64 // delivered, then the next round begins
	best   float64
	min    time.Duration
	minAt  time.Time
	full   float64
	rounds int // without growth
	step   int
	since  time.Time
	until  time.Time // of probing; zero: not begun
	lost   bool
}

func newBBR() *bbr { return &bbr{} }

func (b *bbr) product() float64 { return b.best * b.min.Seconds() }

func (b *bbr) window() float64 {
	switch {
	case b.best == 0:
		return initialWindow
	case b.state == bbrProbing:
		return bbrLeast
	case b.state == bbrStartup || b.state == bbrDrain:
		return max(bbrHighGain*b.product(), initialWindow)
	}
	return max(bbrCapGain*b.product()+3, bbrLeast)
}

func (b *bbr) rate() float64 {
	gain := 1.0
	switch b.state {
	case bbrStartup:
		gain = bbrHighGain
	case bbrDrain:
		gain = 1 / bbrHighGain
	case bbrSteady:
		gain = bbrCycle[b.step]
	}
	if b.best == 0 {
		return gain * initialWindow / 0.001
	}
	return max(gain*b.best*bbrMargin, 1)
}

func (b *bbr) acked(now time.Time, n news) {
	b.lost = b.lost || n.lost > 0
	if n.roundTrip == 0 {
		return
	}
	started := false
	if n.packet.delivered >= b.next {
		b.next, started = n.delivered, true
		b.round++
		b.rates[b.round%bbrRounds] = 0
	}
	took := max(now.Sub(n.packet.deliveredAt), n.roundTrip/2)
	if r := &b.rates[b.round%bbrRounds]; took > 0 {
		*r = max(*r, float64(n.delivered-n.packet.delivered)/took.Seconds())
	}
	b.best = 0
	for _, r := range b.rates {
		b.best = max(b.best, r)
	}
	expired := b.min > 0 && now.Sub(b.minAt) > bbrMinRTT
	if b.min == 0 || n.roundTrip <= b.min || expired {
		b.min, b.minAt = n.roundTrip, now
	}
	switch b.state {
	case bbrStartup:
		if !started {
			break
		}
		if b.best >= b.full*1.25 {
			b.full, b.rounds = b.best, 0
		} else if b.rounds++; b.rounds >= bbrFullRound {
			b.state = bbrDrain
		}
	case bbrDrain:
		if float64(n.flying) <= b.product() {
			b.state, b.step, b.since = bbrSteady, 2, now
		}
	case bbrSteady:
		gain, age := bbrCycle[b.step], now.Sub(b.since)
		turn := age > b.min
		switch {
		case gain > 1:
			turn = turn && (b.lost || float64(n.flying) >= gain*b.product())
		case gain < 1:
			turn = turn || float64(n.flying) <= b.product()
		}
		if turn {
			b.step, b.since, b.lost = (b.step+1)%len(bbrCycle), now, false
		}
	case bbrProbing:
		switch {
		case b.until.IsZero() && n.flying <= bbrLeast:
			b.until = now.Add(bbrProbeRTT)
		case !b.until.IsZero() && now.After(b.until):
			b.minAt = now
			b.state, b.step, b.since = bbrSteady, 2, now
		}
	}
	if expired && b.state != bbrProbing {
		b.state, b.until = bbrProbing, time.Time{}
	}
}
