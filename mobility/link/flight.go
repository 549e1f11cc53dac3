package link

import (
	"math"
	"sync"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/mobility/pathmtu"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

// DefaultFlightBytes bounds the sent packets that are kept for a replay, however
// much the path holds.
const DefaultFlightBytes = 16 << 20

// leastFlight is kept in any case, in bytes, as far as Config.FlightBytes allows.
const leastFlight = 1 << 20

const (
	// flightIdle is how long after the last packet the flight is kept when the
	// peer has been heard since: what it lost by then it has asked for again.
	flightIdle = 2 * time.Second
	// flightAge ends it in any case; a client may be without a network for
	// long, but not all of them at once may keep memory for good.
	flightAge = 30 * time.Minute
)

// A flight is what has been sent lately. After a move the other end's receive
// state says which of it the old path swallowed, and that is sent again, newly
// protected: nobody's timer has to find out (DESIGN.md, Section 6).
type flight struct {
	link *Link

	mu      sync.Mutex
	ring    []sent // its length is a power of two
	head    int
	count   int
	bytes   int
	last    int64 // when something was added, by package clock
	timer   *time.Timer
	armed   bool
	stopped bool
	gone    int // large pieces lost since the last of them arrived
}

// A piece is large if a path that takes the base size alone would lose it.
const largeBytes = pathmtu.BaseSize - esp.MaxOverhead

// blackHole is how many large pieces are lost in a row before their size is
// suspected.
const blackHole = 8

// sent is an inner packet with the ESP packets that carried it.
type sent struct {
	packet tunnel.Packet
	size   int // of the pieces of it that these are, in bytes
	out    *esp.Outbound
	first  uint64 // sequence number of the first ESP packet
	n      int    // ESP packets
	mtu    int    // that the inner packet was cut to
	recut  bool   // these are pieces of its pieces, and cannot be told apart
	mask   uint64 // the pieces that they are, a bit each; 0: all, in order
	got    uint64 // ESP packets that are known to have arrived, a bit each
	again  uint64 // and those sent again since
	// reports says that the peer tells what comes by that carrier: what is not
	// known to have arrived then has not.
	reports bool
	by      transports.Carrier
	at      int64 // when it was sealed, Unix nanoseconds
	born    int64 // when it was sealed first
	held    bool  // part of it never left: no carrier took it
}

// add keeps e and takes its packet over; the oldest give way.
func (f *flight) add(e sent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		e.packet.Release()
		return
	}
	for f.count > 0 && (f.bytes+e.size > f.link.c.FlightBytes || f.bytes > leastFlight && f.old()) {
		f.drop()
	}
	if f.count == len(f.ring) {
		ring := make([]sent, max(16, 2*len(f.ring)))
		n := copy(ring, f.ring[f.head:])
		copy(ring[n:], f.ring[:f.head])
		f.ring, f.head = ring, 0
	}
	f.ring[(f.head+f.count)&(len(f.ring)-1)] = e
	f.count++
	f.bytes += e.size
	f.last = e.at
	if !f.armed {
		f.armed = true
		if f.timer == nil {
			f.timer = time.AfterFunc(flightIdle, f.check)
		} else {
			f.timer.Reset(flightIdle)
		}
	}
}

// old holds if the oldest packet is of no use any more: the peer has been heard so
// long after it that what it has lost by now is known. So a flight has what leaves in
// that time: a few times the product of rate and round trip, and in an outage
// everything since. The caller holds mu.
func (f *flight) old() bool {
	v := &f.link.life
	e := &f.ring[f.head]
	lasts := 2*time.Duration(v.rtt.Load()) + v.limit() + 2*AckDelay
	if e.by != nil && !datagrams(e.by) {
		lasts += flightIdle // it may have waited in the system
	}
	return e.at < v.in.Load()-int64(lasts)
}

// drop releases the oldest packet; the caller holds mu.
func (f *flight) drop() {
	e := &f.ring[f.head]
	f.bytes -= e.size
	e.packet.Release()
	*e = sent{}
	f.head = (f.head + 1) & (len(f.ring) - 1)
	f.count--
}

// check lets go of the flight when nothing was sent for a while.
func (f *flight) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return
	}
	idle := clock.Since(f.last)
	heard := f.link.life.in.Load() > f.last
	if idle >= flightIdle && heard || idle >= flightAge {
		for f.count > 0 {
			f.drop()
		}
		f.ring, f.head, f.armed = nil, 0, false
		return
	}
	f.timer.Reset(max(flightIdle-idle, flightIdle/2))
}

// take empties the flight and gives its packets, oldest first, to the caller.
func (f *flight) take() []sent {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]sent, 0, f.count)
	for ; f.count > 0; f.count-- {
		all = append(all, f.ring[f.head])
		f.ring[f.head] = sent{}
		f.head = (f.head + 1) & (len(f.ring) - 1)
	}
	f.bytes = 0
	return all
}

// hold notes that ESP packets from seq on have not left. They come before
// everything that is queued, whatever a blind replay leaves out.
func (f *flight) hold(out *esp.Outbound, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := f.count - 1; i >= 0; i-- {
		e := &f.ring[(f.head+i)&(len(f.ring)-1)]
		if e.out != out || e.first+uint64(e.n) <= seq {
			return
		}
		e.held = true
	}
}

// lost lets go of what has arrived, and gives what has not and is late, with a
// reference of its own. What the reports have not told of while they could is lost
// too. Early says that something is missing that is not late yet.
func (f *flight) lost(out *esp.Outbound, m report, late func(seq uint64, sealed int64) bool) (found []lost, early bool) {
	arrived := esp.ReceiveState{Highest: m.state.Highest, Missing: m.state.Missing}
	f.mu.Lock()
	defer f.mu.Unlock()
	oldest := true
	for i := 0; i < f.count; i++ {
		e := &f.ring[(f.head+i)&(len(f.ring)-1)]
		if e.out != out {
			oldest = false
			continue
		}
		if e.first > arrived.Highest {
			break
		}
		var pieces uint64
		whole := true
		large := e.size > e.n*largeBytes
		for k := range e.n {
			seq := e.first + uint64(k)
			if k < 64 && (e.again|e.got)&(1<<k) != 0 {
				continue
			}
			got, known := arrived.Arrived(seq)
			switch {
			case seq > arrived.Highest:
				whole = false
			case got || !known && (k >= 64 || !e.reports):
				if k < 64 {
					e.got |= 1 << k
				}
				if got && large {
					f.gone = 0
				}
			case k < 64 && late(seq, e.at):
				pieces |= 1 << k
				if large {
					f.gone++
				}
			default:
				whole, early = false, true
			}
		}
		if pieces != 0 {
			found = append(found, lost{*e, pieces})
			e.packet.Retain()
			e.again |= pieces
		}
		if oldest = oldest && whole; oldest {
			f.drop()
			i--
		}
	}
	return found, early
}

// narrow tells, once, that large pieces are lost one after the other.
func (f *flight) narrow() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone < blackHole {
		return false
	}
	f.gone = 0
	return true
}

// tail gives the newest packet of which nothing up to highest has been
// reported, to be sent again as a whole.
func (f *flight) tail(out *esp.Outbound, highest uint64) (lost, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == 0 {
		return lost{}, false
	}
	e := &f.ring[(f.head+f.count-1)&(len(f.ring)-1)]
	if e.out != out || e.first+uint64(e.n)-1 <= highest || e.n > 64 {
		return lost{}, false
	}
	// The last of its pieces is enough: its report tells of the others.
	l := lost{*e, 1 << (e.n - 1) &^ e.again}
	if l.pieces == 0 {
		return lost{}, false
	}
	e.packet.Retain()
	e.again |= l.pieces
	return l, true
}

// kept is how many bytes of packets the flight holds.
func (f *flight) kept() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

func (f *flight) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	if f.timer != nil {
		f.timer.Stop()
	}
	for f.count > 0 {
		f.drop()
	}
}

// A replay is an order to send again.
type replay struct {
	// Exact: what state says has not arrived. What was sent by the carrier in use
	// after since is still on its way.
	state regmsg.ReceiveState
	since int64 // by package clock; 0: nothing is on its way

	// Blind, with state.SPI zero: what was sent after since by other carriers, up
	// to limit bytes of inner packets.
	limit int
}

const (
	// blindBytes is how much is sent again, without knowing whether it arrived,
	// by a carrier that has brought nothing yet: an initial window of ten full
	// segments (RFC 6928).
	blindBytes = 14600
	// noticeTime is how long the system may take to tell of a change, and
	// noticeBytes how much of what was sent in it is sent again.
	noticeTime  = 2 * time.Millisecond
	noticeBytes = 64 << 10
	// holeBytes is the same for what went into a hole, as far as one can know, by
	// a carrier of datagrams. A stream has proven its path by a handshake, and
	// paces what it takes.
	holeBytes = 1 << 20
)

// Replay has everything sent again, by the carrier in use, that the other end
// has not received according to its state, before what is queued. What was sent
// by that carrier itself after the state was asked for, at asked, is on its way
// and left alone; the zero time stands for a state that was not asked for by
// this carrier. It is called once for each move, after Use.
func (l *Link) Replay(state regmsg.ReceiveState, asked time.Time) {
	if state.SPI == 0 {
		return
	}
	o := &replay{state: state}
	if !asked.IsZero() {
		o.since = clock.Of(asked)
	}
	l.order(o)
}

func (l *Link) order(o *replay) {
	l.replayed.Store(clock.Now())
	l.replay.Store(o)
	l.replays.Add(1)
	l.queue.Wake()
	l.wake()
}

// UseProvisionally is Use for a carrier by which nothing has been heard yet.
// What was sent by others after since can hardly have arrived and is sent again
// at once, and if the link had been silent by then for longer than two round
// trips, what was sent in that silence, too. With since zero that is so if the link has been silent for longer
// than two round trips; then the first few packets are sent again, so that the
// other end has something to acknowledge. Otherwise only what left while the
// news of the change were under way went nowhere.
func (l *Link) UseProvisionally(c transports.Carrier, since time.Time) {
	in, rtt := l.life.in.Load(), l.life.rtt.Load()
	l.Use(c, true, 0)
	switch {
	case !since.IsZero():
		from, limit := clock.Of(since), math.MaxInt
		if in != 0 && from-in > 2*rtt {
			from = in - 2*rtt
		}
		if datagrams(c) {
			limit = holeBytes
		}
		l.order(&replay{since: from, limit: limit})
	case in != 0 && clock.Now()-in > 2*rtt:
		l.order(&replay{since: in - 2*rtt, limit: blindBytes})
	default:
		l.order(&replay{since: clock.Now() - int64(noticeTime), limit: noticeBytes})
	}
}

// replayNow does what was ordered. It runs on the pump, and says whether there
// was something to do.
func (l *Link) replayNow(b *buffers) bool {
	o := l.replay.Swap(nil)
	if o == nil {
		return false
	}
	var by transports.Carrier
	if p := l.path.Load(); p != nil {
		by = p.carrier
	}
	arrived := esp.ReceiveState{Highest: o.state.Highest, Missing: o.state.Missing}
	blind := 0
	b.pacer = &pacer{rate: replayRate(l.meter.rate(), l.recovery.rate()), start: time.Now()}
	defer func() { b.pacer = nil }()
	for _, e := range l.flight.take() {
		var missing func(i int) bool
		if l.replay.Load() != nil {
			// Another carrier has come into use, or its answer. What is left goes
			// behind what this one has not taken, as before.
			l.flight.add(e)
			continue
		}
		switch {
		case e.by == by && o.since != 0 && e.at >= o.since:
			l.flight.add(e)
			continue
		case o.state.SPI == 0 && !e.held && (e.at < o.since || blind >= o.limit):
			l.flight.add(e)
			continue
		case o.state.SPI == 0:
			missing = func(int) bool { return true }
		default:
			if missing = e.missing(o.state.SPI, arrived); missing == nil {
				e.packet.Release()
				continue
			}
		}
		n := len(b.esp)
		blind += e.size
		l.seal(b, e.packet, &e, missing)
		l.resent.Add(uint64(len(b.esp) - n))
		for _, p := range b.esp[n:] {
			l.resentBytes.Add(uint64(len(p)))
		}
		if len(b.sealed) >= flushBytes {
			l.flush(b)
		}
	}
	l.flush(b)
	return true
}

// missing tells which of the ESP packets have not arrived; nil if all have, or
// if the state is not about their SA.
func (e *sent) missing(spi uint32, r esp.ReceiveState) func(i int) bool {
	if e.out.SPI() != spi {
		return nil
	}
	lost := func(i int) bool {
		if i < 64 && (e.again|e.got)&(1<<i) != 0 {
			return false // it has arrived, or is in the flight itself
		}
		seq := e.first + uint64(i)
		if seq > r.Highest {
			return true
		}
		got, known := r.Arrived(seq)
		return !got && (known || e.reports && i < 64)
	}
	for i := range e.n {
		if lost(i) {
			return lost
		}
	}
	return nil
}
