package rate

import (
	"math"
	"time"
)

// Loss alone says nothing of a path, but what is lost while there is a queue may
// be lost because it is full. Then others lose packets too, and those whose
// congestion control listens to losses send less. So does a Control, as much and
// as long as CUBIC (RFC 9438): they share the path. If the losses come again all
// the same before long, nobody listens: the path loses packets however slowly
// one sends, or is shared with senders that take what they find, and to yield to
// them is to give way for good. Then losses are not listened to for a while.

const (
	// yieldTo is the part of what was on the way that stays: a little less than
	// CUBIC's beta of 0.7, as what is known of that is a report old.
	yieldTo = 0.66
	// cubicC and cubicAlpha set how fast it grows again: RFC 9438, Sections 4.1
	// and 4.3.
	cubicC     = 0.4
	cubicAlpha = 3 * (1 - yieldTo) / (1 + yieldTo)
	// segment is what CUBIC counts in, in bytes.
	segment = 1400

	// early is the part of what was on the way before below which losses come too
	// soon for senders that yield.
	early = 0.9
	// earlyMost are so many in a row that they are not listened to for a while,
	// which grows as long as the same shows again.
	earlyMost           = 2
	deafLeast, deafMost = 4 * time.Second, 8 * time.Second
)

// A yield bounds what may be on the way.
type yield struct {
	most    float64   // bytes; 0: without bound
	curve   float64   // of CUBIC; most is no less
	top     float64   // that were on the way when they were reduced
	at      time.Time // of the reduction
	ignore  time.Time // losses of what left before
	early   int
	deaf    time.Time // until then
	deafFor time.Duration

	// What arrives and is lost without a queue, and with one, in bytes. The
	// latter are of this round.
	calm, calmLost float64
	full, fullLost float64
	calmNow        bool
}

// round begins a new one.
func (y *yield) round() {
	if y.calmNow {
		y.calm, y.calmLost = y.calm*0.98, y.calmLost*0.98
	} else {
		y.calmLost *= 0.95
	}
	y.calmNow = false
	y.full, y.fullLost = 0, 0
}

// count takes what has arrived and what is lost.
func (y *yield) count(queue bool, got, lost float64) {
	if queue {
		y.full, y.fullLost = y.full+got, y.fullLost+lost
	} else {
		y.calm, y.calmLost, y.calmNow = y.calm+got, y.calmLost+lost, true
	}
}

// undo takes back what counted as lost and has come. Whether there was a queue
// when it seemed lost is not known any more.
func (y *yield) undo(bytes float64) {
	y.calmLost, y.fullLost = max(y.calmLost-bytes, 0), max(y.fullLost-bytes, 0)
}

// congested says whether more is lost with a queue than without one.
func (y *yield) congested() bool {
	if y.fullLost == 0 {
		return false
	}
	n := (y.full + y.fullLost) / segment
	p := y.calmLost / max(y.calm+y.calmLost, 1)
	if p == 0 {
		return true
	}
	return y.fullLost/segment > p*n+3*math.Sqrt(p*n)+2
}

// reduce yields: flying bytes are on the way, and least may be in any case.
func (y *yield) reduce(now time.Time, flying, least float64) {
	switch {
	case y.most == 0:
	case y.curve >= early*y.top:
		y.early, y.deafFor = 0, deafLeast
	default:
		y.early++
	}
	if y.early >= earlyMost {
		// One time is enough when it shows again.
		y.most, y.early = 0, earlyMost-1
		y.deafFor = max(y.deafFor, deafLeast)
		y.deaf = now.Add(y.deafFor)
		y.deafFor = min(2*y.deafFor, deafMost)
		return
	}
	before := y.top
	y.top = flying
	if flying < before {
		y.top *= (1 + yieldTo) / 2 // fast convergence, RFC 9438, Section 4.7
	}
	y.curve, y.at = flying*yieldTo, now
	y.most = max(y.curve, least)
}

// grow lets more be on the way again, on a path with this round trip.
func (y *yield) grow(now time.Time, roundTrip time.Duration) {
	if y.most == 0 {
		return
	}
	reno := y.top*yieldTo + cubicAlpha*segment*now.Sub(y.at).Seconds()/roundTrip.Seconds()
	if reno > y.top {
		reno = y.top + (reno-y.top)/cubicAlpha
	}
	k := math.Cbrt(y.top * (1 - yieldTo) / segment / cubicC)
	t := now.Sub(y.at).Seconds() - k
	y.curve = max(y.top+cubicC*segment*t*t*t, reno, y.curve)
	y.most = max(y.most, y.curve)
}
