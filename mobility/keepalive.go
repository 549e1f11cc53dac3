package mobility

import "time"

// Bounds of a Keepalive.
const (
	// DefaultKeepalive is how often a mapping is refreshed while nothing is known
	// (RFC 3948, Section 4).
	DefaultKeepalive = 20 * time.Second
	// MinKeepalive and MaxKeepalive bound what is learnt. NATs shall keep mappings for
	// two minutes (RFC 4787, REQ-5); many have half a minute.
	MinKeepalive = 15 * time.Second
	MaxKeepalive = 10 * time.Minute

	// besideTest is how long after a request other packets may leave that do not disturb
	// the test, to a second or so.
	besideTest = time.Second

	// lateAnswer is how late an answer may come that was asked for.
	lateAnswer = 5 * time.Second
)

// A Keepalive learns how long a NAT on the way keeps the mapping of a path on which
// nothing passes, and refreshes it as seldom as that allows. Instead of a NAT-keepalive
// it may ask the other end to answer after a longer pause: the answer comes if the
// mapping is still there. If not, the path is out of the other end's reach for a part
// of that pause, so steps are small and none is taken twice. It takes the time and does
// no I/O.
type Keepalive struct {
	kept, lost time.Duration // known to be kept and to be lost; 0: unknown
	asked      time.Time     // when the test under way began
	test       time.Duration // its pause; 0: none is under way
	due        time.Time
}

// A Refresh is what a Keepalive wants to be sent.
type Refresh uint8

// The ways to refresh a mapping.
const (
	RefreshNone Refresh = iota
	// RefreshPlain is a NAT-keepalive.
	RefreshPlain
	// RefreshAsk is a request for an answer after the pause.
	RefreshAsk
	// RefreshLost is a request for an answer at once: the mapping was lost, and what
	// leaves now makes a new one that the other end has to be told of.
	RefreshLost
)

// NewKeepalive begins at now with what is known: a pause after which a mapping was
// kept, and one after which it was lost; 0 for unknown.
func NewKeepalive(now time.Time, kept, lost time.Duration) *Keepalive {
	k := &Keepalive{kept: min(kept, MaxKeepalive), lost: lost}
	if k.lost > 0 && k.lost <= k.kept {
		k.kept, k.lost = 0, 0 // that contradicts itself
	}
	k.due = now.Add(k.Interval())
	return k
}

// Interval is how long a pause may get.
func (k *Keepalive) Interval() time.Duration {
	switch {
	case k.kept > 0:
		return max(k.kept, MinKeepalive)
	case k.lost > 0 && k.lost <= DefaultKeepalive:
		return MinKeepalive
	}
	return DefaultKeepalive
}

// Known is what was learnt, as NewKeepalive takes it.
func (k *Keepalive) Known() (kept, lost time.Duration) { return k.kept, k.lost }

// NextTimeout is when Advance wants to be called.
func (k *Keepalive) NextTimeout() time.Time { return k.due }

// next is the pause to try next; 0: nothing is to be learnt any more.
func (k *Keepalive) next() time.Duration {
	now := k.Interval()
	next := now * 3 / 2
	if k.kept == 0 && (k.lost == 0 || now < k.lost) {
		next = now // what is done already has to be shown first
	} else if k.lost > 0 {
		if next = (now + k.lost) / 2; k.lost-now <= now/4 {
			return 0
		}
	}
	if next = min(next, MaxKeepalive).Truncate(time.Second); next <= k.kept {
		return 0
	}
	return next
}

// Advance says what is to be sent at now, where something left last at sent; pause goes
// with RefreshAsk.
func (k *Keepalive) Advance(now, sent time.Time) (r Refresh, pause time.Duration) {
	if now.Before(k.due) {
		return RefreshNone, 0
	}
	if k.test > 0 {
		pause, began := k.test, k.asked
		k.test = 0
		if !sent.After(began.Add(besideTest)) {
			if k.lost == 0 || pause < k.lost {
				k.lost = pause
			}
			k.due = now.Add(k.Interval())
			return RefreshLost, 0
		}
	}
	if at := sent.Add(k.Interval()); at.After(now) {
		k.due = at
		return RefreshNone, 0
	}
	if pause = k.next(); pause > 0 {
		k.test, k.asked = pause, now
		k.due = now.Add(pause + lateAnswer)
		return RefreshAsk, pause
	}
	k.due = now.Add(k.Interval())
	return RefreshPlain, 0
}

// Answered takes the answer that was asked for; sent is when something left last. It
// tells whether that taught something; then the mapping has to be refreshed now.
func (k *Keepalive) Answered(now, sent time.Time) bool {
	if k.test == 0 || sent.After(k.asked.Add(besideTest)) || now.Sub(k.asked) < k.test {
		return false
	}
	k.kept, k.test, k.due = k.test, 0, now
	return true
}
