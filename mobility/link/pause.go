package link

import (
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/clock"
)

// idleAfter is how long no data may have passed before that counts as idle, if
// none waits either.
const idleAfter = time.Second

// A pause is the longest time without data in one direction, in nanoseconds. It
// costs the data path a few atomic operations for each batch.
type pause struct{ last, longest atomic.Int64 }

// data notes that data passed at now, by package clock.
func (p *pause) data(now int64) {
	last := p.last.Swap(now)
	for last != 0 {
		longest := p.longest.Load()
		if now-last <= longest || p.longest.CompareAndSwap(longest, now-last) {
			return
		}
	}
}

// reset begins anew, with the time since the last data unless that was idle.
func (p *pause) reset(now time.Time, waiting bool) {
	p.longest.Store(0)
	if last := p.last.Load(); !waiting && clock.Of(now)-last > int64(idleAfter) {
		p.last.CompareAndSwap(last, 0)
	}
}

// WatchPauses begins to measure, at now, the pauses that Pauses tells.
func (l *Link) WatchPauses(now time.Time) {
	waiting := l.queue.Bytes() > 0
	l.pauseOut.reset(now, waiting)
	l.pauseIn.reset(now, waiting)
}

// Pauses tells the longest time without data in each direction since
// WatchPauses, as seen at this end. What an application does not send counts,
// too, except if nothing passed in the second before.
func (l *Link) Pauses() (out, in time.Duration) {
	return time.Duration(l.pauseOut.longest.Load()), time.Duration(l.pauseIn.longest.Load())
}
