package mobility

import (
	"slices"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// Data with the request: when the carrier in use is known to work no more,
// data need not wait for a reply. It leaves right behind the request, by the
// carrier that is likeliest to be selected, and what that swallows is in the
// flight: the reply's receive state tells. No harm can come of it, as the other
// end takes ESP of a known SA from anywhere and duplicates die in its window.
//
// The likeliest is the most preferred of those that are ready. A stream's
// handshake proves the path, so when one is ready and a datagram encapsulation
// still has no answer, which should have been there by then, the stream takes
// over. What worked here before goes before what did not.

// shiftShare is the part of a stream's handshake that an answer by a datagram
// encapsulation may come later than it, and minShift its least.
const (
	shiftShare = 16
	minShift   = time.Millisecond
)

// Ready tells that a carrier takes data from now on; an action Use may follow.
// Opened must have come before.
func (r *Registrar) Ready(now time.Time, id CarrierID) {
	c := r.carriers[id]
	if c == nil || !c.opened || c.ready {
		return
	}
	c.ready = true
	rd := r.round
	if r.slotOf(c) == nil || rd.rec.Done || !rd.broken || !rd.answered.IsZero() {
		return
	}
	used := r.carriers[rd.provisional]
	switch {
	case used == nil:
		r.provide(c)
	case used.id == rd.warm: // it worked a moment ago, which no other can say
	case r.knownBetter(c.name, used.name):
		r.provide(c)
	case reliable(c.name) && !reliable(used.name):
		if rd.shiftAt.IsZero() {
			rd.shiftTo, rd.shiftAt = c.id, now.Add(max(now.Sub(c.asked)/shiftShare, minShift))
		}
	case r.knownBetter(used.name, c.name):
	case reliable(c.name) == reliable(used.name) && r.preference(c.name) < r.preference(used.name):
		r.provide(c)
	}
}

// knownBetter holds when a worked here before and b did not. A stream that once
// passed where datagrams did not need not wait for them.
func (r *Registrar) knownBetter(a, b transports.Name) bool {
	p := r.round.prefer
	return slices.Contains(p, a) && !slices.Contains(p, b)
}

// remembered is n's place in what worked before, behind all of it if it is not
// there.
func remembered(prefer []transports.Name, n transports.Name) int {
	if i := slices.Index(prefer, n); i >= 0 {
		return i
	}
	return len(prefer)
}

// provide has data leave by c before it has answered.
func (r *Registrar) provide(c *carrier) {
	rd := r.round
	if rd.provisional == c.id {
		return
	}
	u := Use{ID: c.id, Validated: true, Provisional: true}
	if rd.provided {
		u.Since = rd.rec.Started
	}
	rd.provisional, rd.provided = c.id, true
	r.do(u)
}

// unprovide takes another carrier when the provisional one is lost. It does not go
// back to datagrams that would have been answered by then: what they swallow would
// only be in the way of what passes. Without another, data waits for an answer.
func (r *Registrar) unprovide(now time.Time, id CarrierID) {
	rd := r.round
	if rd == nil || rd.provisional != id || rd.rec.Done || !rd.answered.IsZero() {
		return
	}
	rd.provisional = 0
	for _, c := range r.sorted() {
		if r.slotOf(c) != nil && c.ready && (reliable(c.name) || !rd.shifted) {
			c.ready = false
			r.Ready(now, c.id)
		}
	}
}
