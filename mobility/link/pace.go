package link

import (
	"sync"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// A replay would leave all at once, and the queue before the narrowest part of
// the new path, which held it together with what was on the way, would lose the
// end of it. TCP has nothing then that could tell it, short of its timer. So a
// replay leaves as fast as data left before the move: TCP had found out how
// much the way takes, and of the new way nothing better is known.
const (
	// replayBurst leaves at once: a few packets more than TCP's own initial
	// window (RFC 6928).
	replayBurst = 24 << 10
	// replayPiece leaves together.
	replayPiece = 8 << 10
	// minReplayRate is for a link on which little was sent, in bytes a second.
	minReplayRate = 128 << 10
	// replayGain is how much faster than data left a replay may leave, where a
	// faster rate was seen: what was lost and what is new share the path for a
	// while, and a rate that was seen long ago may be there no more.
	replayGain = 1.5
	// meterSpan is what the rate is averaged over.
	meterSpan = 100 * time.Millisecond
	// meterKeep is how much of the rate counts still a span later.
	meterKeep = 0.8
)

// A meter knows how fast data leaves while the peer is heard.
type meter struct {
	mu    sync.Mutex
	since int64   // the span's beginning, by package clock
	bytes int     // sent in it
	best  float64 // bytes a second: the highest of the last spans, the older the less
}

// sent notes that n bytes have left. heard is when the peer was last heard: what
// leaves into a network that is gone says nothing of its rate.
func (m *meter) sent(now, heard int64, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := time.Duration(now - m.since); d >= meterSpan {
		if heard > m.since {
			// A pause within the span makes it longer and the rate lower.
			m.best = max(float64(m.bytes)/d.Seconds(), m.best*meterKeep)
		}
		m.since, m.bytes = now, 0
	}
	m.bytes += n
}

// rate is in bytes a second.
func (m *meter) rate() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.best, minReplayRate)
}

// replayRate is how fast a replay leaves where data left at one rate before and
// another was seen, in bytes a second.
func replayRate(left, seen float64) float64 { return max(left, min(seen, replayGain*left)) }

// A pacer spreads one replay.
type pacer struct {
	rate  float64   // bytes a second
	start time.Time // of the replay
	bytes int       // that have left
}

// piece says how many of pkts leave together.
func (p *pacer) piece(pkts []transports.Packet) (n int) {
	size := 0
	for ; n < len(pkts) && (n == 0 || size+len(pkts[n].Data) <= replayPiece); n++ {
		size += len(pkts[n].Data)
	}
	return n
}

// wait is how long after now the next piece may leave.
func (p *pacer) wait(now time.Time) time.Duration {
	due := time.Duration(float64(p.bytes-replayBurst) / p.rate * float64(time.Second))
	return due - now.Sub(p.start)
}
