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

	// capGain is how much of the product of rate and round trip may be on the
	// way: reports come late and in lumps.
	capGain = 2

	// bestRounds is how many round trips a rate is remembered.
	bestRounds = 10
	// shortestFor is how long a shortest round trip is believed, and probeFor how
	// long little is on the way, to measure it anew.
	shortestFor = 10 * time.Second
	probeFor    = 150 * time.Millisecond

	// near is the round trip below which nothing is paced: timers are not
	// finer than what there would be to pace.
	near = 3 * time.Millisecond
	// nearBytes may be on the way there. What is more waits in the buffer of the
	// receiving socket, behind it what is small and in a hurry, and has left the
	// processor's caches when it is read.
	nearBytes = 2 << 20

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

	// fallen is the part of the known rate below which the path has changed, if
	// the round trip has grown too, or packets are lost.
	fallen = 0.65

	// allArrives is the part of what left that arrives where the path is not what
	// limits it; the rest is lost, or still on its way.
	allArrives = 0.85
	// stalled is how long without any report is a pause of one end or the path.
	stalled = 40 * time.Millisecond
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

// A Report is what the receiver told.
type Report struct {
	SPI     uint32
	Highest uint64        // sequence number that has arrived
	Bytes   uint64        // received in all
	Arrived uint32        // when Highest arrived: microseconds of the receiver's clock
	Ago     time.Duration // since then, when the report left
	Lost    int           // bytes that it showed to be lost, by the caller's rule
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
	c.lost += r.Lost
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
