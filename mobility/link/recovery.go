package link

import (
	"cmp"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/mobility/rate"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

// recovery makes the loss of packets on the way look like delay to the TCP
// inside. Who receives data reports a few times in a round trip what has come;
// who sent it sends again what is missing, newly sealed, and follows the path's
// rate, since TCP does not learn from losses any more. It is the replay of a
// move (flight.go) all the time, on encapsulations that lose packets. It begins
// when the peer reports.
type recovery struct {
	link *Link
	on   atomic.Bool
	// window is what the TCP inside may have under way, in bytes; 0: anything.
	window atomic.Int64
	got    arrivals

	mu      sync.Mutex
	control *rate.Control
	carrier transports.Carrier // that control is of
	spi     uint32             // of the packets that highest counts
	highest uint64             // reported
	rose    time.Time          // when it rose last
	again   []lost             // to be sent again
	last    report             // of which only the state is kept
	missing [maxMissing]byte
	look    alarm     // looks at last again
	blocked time.Time // since when nothing may leave; zero: it may
	held    bool      // something waited for its turn since the queue was empty
	tail    alarm
	tries   int // of the tail, since the last report
	stopped bool
}

// lost is a packet of the flight of which pieces are missing.
type lost struct {
	sent
	pieces uint64 // a bit for each ESP packet, in the order that they left in
}

// turn orders what is sent again: what waits longest first, as the other end holds
// what came behind it, and before all that what is as small as a keystroke.
func (l *lost) turn() int64 {
	if l.size <= smallBytes {
		return 0
	}
	return l.born
}

// Timing of our own.
const (
	// urgentEvery is the least time between reports of new gaps.
	urgentEvery = time.Millisecond
	// reportPackets are reported at the latest: a quarter of what may be on the way
	// on a near path, so that it never stands still.
	reportPackets = 384
	// blockedFor is how long nothing leaves without any report; then what is on
	// the way counts as lost.
	blockedFor = time.Second
	// Gaps are waited for so many round trips, within the bounds: lost pieces
	// may be lost again.
	holdTrips        = 10
	minHold, maxHold = 150 * time.Millisecond, 2 * time.Second
	// resendBytes are sent again at a time.
	resendBytes = 32 << 10
	// smallBytes is the size of packets that are sent again before others.
	smallBytes = 512
	// maxTail is how often the last packet is sent again unasked.
	maxTail = 3
)

// Recover switches recovery on or off: a peer that is no godwit has none.
func (l *Link) Recover(on bool) { l.recovery.on.Store(on) }

// arrivals is what the receiving end remembers for its reports.
type arrivals struct {
	mu       sync.Mutex
	in       *esp.Inbound // of the SA reported on
	highest  uint64
	at       time.Time // when highest came
	holes    uint64    // packets missing of the SA, ever
	gap      time.Time // when there was a new one
	bytes    uint64    // of ESP packets
	packets  int       // of data, since the last report
	reported time.Time
	due      alarm     // reports
	begin    time.Time // of the clock in reports
}

// serves holds if recovery is on for packets by c.
func (r *recovery) serves(c transports.Carrier) bool {
	return r.on.Load() && c != nil && datagrams(c)
}

// received notes packets that came by c on e, size bytes in all, data of them
// with content, and reports when it is time.
func (r *recovery) received(e *inbound, c transports.Carrier, size, data int) (way tunnel.Way) {
	if !r.serves(c) {
		return way
	}
	way.Window = int(r.window.Load())
	now := time.Now()
	highest, arrived := e.in.Progress()
	var note []byte
	defer func() { r.send(note) }()
	a := &r.got
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.begin.IsZero() {
		a.begin = now
	}
	if a.in != e.in {
		a.in, a.highest, a.holes = e.in, 0, 0
	}
	a.bytes += uint64(size)
	urgent := false
	holes := highest - min(arrived, highest)
	if holes > a.holes {
		a.gap, urgent = now, true
	}
	a.holes = holes
	if highest > a.highest {
		a.highest, a.at = highest, now
	}
	every := rate.Interval(time.Duration(r.link.life.rtt.Load()))
	if data > 0 {
		a.packets += data
		since := now.Sub(a.reported)
		if urgent && since >= urgentEvery || a.packets >= reportPackets || since >= every {
			note = a.report(now)
		} else {
			a.due.in(every - since)
		}
	}
	limit := min(max(holdTrips*time.Duration(r.link.life.rtt.Load()), minHold), maxHold)
	if !a.gap.IsZero() && now.Sub(a.gap) < limit {
		way.Hold = limit
	}
	return way
}

// reportNow reports what was received since the last report.
func (r *recovery) reportNow() {
	a := &r.got
	a.mu.Lock()
	var note []byte
	if a.packets > 0 {
		note = a.report(time.Now())
	}
	a.mu.Unlock()
	r.send(note)
}

// report makes a report of what has come. The caller holds mu.
func (a *arrivals) report(now time.Time) []byte {
	a.reported, a.packets = now, 0
	s := a.in.State()
	m := report{bytes: a.bytes, arrived: uint32(a.at.Sub(a.begin).Microseconds()), ago: now.Sub(a.at)}
	m.state.SPI, m.state.Highest, m.state.Missing = a.in.SPI(), s.Highest, s.Missing
	return m.append(nil)
}

// send sends a report, if there is one.
func (r *recovery) send(note []byte) {
	l := r.link
	out, p := l.outbound.Load(), l.path.Load()
	if len(note) == 0 || out == nil || p == nil {
		return
	}
	b, err := out.SealNote(nil, note)
	if err != nil || !p.spend(len(b)) {
		return
	}
	if p.carrier.Send([]transports.Packet{{Kind: transports.KindESP, Urgent: true, Data: b}}) == nil {
		l.packetsSent.Add(1)
		l.life.sentOther()
		low, _ := esp.SequenceLow(b)
		seq := widen(low, out.Sequence())
		r.sent(p.carrier, out.SPI(), seq, seq, len(b), false, false) // limited if nothing waits behind it
	}
}

// sent notes that ESP packets left by c at this moment. Limited says that no
// data waits for more room.
func (r *recovery) sent(c transports.Carrier, spi uint32, first, last uint64, n int, limited, data bool) {
	if !r.serves(c) {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if rtt := time.Duration(r.link.life.rtt.Load()); r.control == nil {
		r.carrier, r.control = c, rate.New(now, rtt)
	} else if r.carrier != c {
		r.carrier, r.control = c, r.control.Move(now, rtt)
		r.tries, r.blocked = 0, time.Time{}
	}
	// What the control has not held back says nothing of how much the path takes.
	r.control.Sent(now, spi, first, last, n, limited || !r.held)
	if data && limited {
		r.held = false
	}
	if data && r.control.Reported() {
		r.tail.in(r.tailAfter())
	}
}

// turn says how long the pump has to wait before it sends by p: 0 for not at
// all. It is asked again when something changes.
func (r *recovery) turn(p *path, now time.Time) time.Duration {
	if !r.serves(p.carrier) {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.carrier != p.carrier {
		return 0
	}
	if r.control.Room() > 0 {
		r.blocked = time.Time{}
		wait := max(r.control.Wait(now), 0)
		r.held = r.held || wait > 0
		return wait
	}
	r.held = true
	if r.blocked.IsZero() {
		r.blocked = now
	}
	if left := blockedFor - now.Sub(r.blocked); left > 0 {
		return left
	}
	r.control.Lapse()
	r.blocked = time.Time{}
	return 0
}

// pieces says how many of segs leave together by p.
func (r *recovery) pieces(p *path, segs [][]byte) (n int) {
	if !r.serves(p.carrier) {
		return len(segs)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.carrier != p.carrier || !r.control.Reported() {
		return len(segs)
	}
	most, size := r.control.Piece(), 0
	for ; n < len(segs) && (n == 0 || size+len(segs[n]) <= most); n++ {
		size += len(segs[n])
	}
	return n
}

// answers holds if the peer reports what it gets by c: then its data alone does
// not show that it gets ours.
func (r *recovery) answers(c transports.Carrier) bool {
	if !r.serves(c) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.carrier == c && r.control != nil && r.control.Reported()
}

// rate is how fast data may leave, in bytes a second; 0 if that is not known.
func (r *recovery) rate() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.control == nil || !r.control.Reported() {
		return 0
	}
	return r.control.Rate()
}

// reported takes the peer's report, which came by c.
func (r *recovery) reported(m report) {
	l := r.link
	if !r.on.Load() {
		return
	}
	out, p := l.outbound.Load(), l.path.Load()
	if out == nil || p == nil || out.SPI() != m.state.SPI || m.state.Highest > out.Sequence() {
		return
	}
	now := time.Now()
	defer func() {
		if l.flight.narrow() {
			l.mtu.suspect()
		}
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.control == nil || r.carrier != p.carrier || r.stopped {
		return
	}
	if r.spi != m.state.SPI {
		r.spi, r.highest = m.state.SPI, 0
	}
	bytes := 0
	if m.state.Highest >= r.highest {
		if m.state.Highest > r.highest {
			r.highest, r.rose, r.tries = m.state.Highest, now, 0
		}
		r.last.state = m.state
		r.last.state.Missing = append(r.missing[:0], m.state.Missing...)
		bytes = r.find(now, out)
	}
	c := r.control
	c.Report(now, rate.Report{SPI: m.state.SPI, Highest: m.state.Highest, Bytes: m.bytes, Arrived: m.arrived, Ago: m.ago, Lost: bytes})
	if w := c.Window(); w > 0 || c.RoundTrip() > 0 {
		r.window.Store(int64(w)) // until then it is that of the path before
	}
	if d := c.RoundTrip(); d > 0 {
		l.SetRoundTrip(d)
	}
	if len(r.again) > 0 {
		l.queue.Wake()
	}
	l.wake()
}

// find has sent again what the last report shows to be lost, and looks again
// when the rest of what is missing is late. It returns how many bytes are lost. The
// caller holds mu.
func (r *recovery) find(now time.Time, out *esp.Outbound) (bytes int) {
	found, early := r.link.flight.lost(out, r.last, r.late(now))
	for _, f := range found {
		bytes += bits.OnesCount64(f.pieces) * f.mtu
		at, _ := slices.BinarySearchFunc(r.again, f.turn()+1, func(a lost, turn int64) int { return cmp.Compare(a.turn(), turn) })
		r.again = slices.Insert(r.again, at, f)
	}
	if early {
		r.look.in(max(r.control.RoundTrip()/4, time.Millisecond))
	}
	return bytes
}

func (r *recovery) lookAgain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.link.outbound.Load()
	if r.stopped || r.control == nil || out == nil || out.SPI() != r.last.state.SPI {
		return
	}
	r.find(time.Now(), out)
	if len(r.again) > 0 {
		r.link.queue.Wake()
		r.link.wake()
	}
}

// late gives the rule by which a missing packet counts as lost: something that
// left a quarter of a round trip later has arrived (the time-based rule of RFC
// 8985, Section 6.2). The caller holds mu.
func (r *recovery) late(now time.Time) func(seq uint64, sealed int64) bool {
	c := r.control
	newest, _ := c.SentAt(r.spi, r.highest)
	window := max(c.RoundTrip()/4, time.Millisecond)
	return func(seq uint64, sealed int64) bool {
		at, forgotten := c.SentAt(r.spi, seq)
		if forgotten {
			return true
		}
		if at.IsZero() {
			at = now.Add(time.Duration(sealed - clock.Of(now))) // it is about to leave, or a carrier that failed kept it
		}
		return newest.Sub(at) >= window || now.Sub(at) >= c.RoundTrip()+window
	}
}

// pending holds if something is to be sent again.
func (r *recovery) pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.again) > 0
}

// take gives what is to be sent again next: about as much as one send.
func (r *recovery) take() []lost {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, size := 0, 0
	for ; n < len(r.again) && size < resendBytes; n++ {
		size += bits.OnesCount64(r.again[n].pieces) * r.again[n].mtu
	}
	again := r.again[:n:n]
	if r.again = r.again[n:]; len(r.again) == 0 {
		r.again = nil
	}
	return again
}

// tailAfter is when a report of a packet is overdue.
func (r *recovery) tailAfter() time.Duration {
	rtt := r.control.RoundTrip()
	return (rtt + rtt/4 + 2*rate.Interval(rtt)) << min(r.tries, 6)
}

// checkTail sends the last packet again when no report has come for it: nothing
// that left later shows that it is lost.
func (r *recovery) checkTail() {
	l := r.link
	now := time.Now()
	silent := false
	defer func() {
		if silent {
			l.mtu.suspect()
		}
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.control == nil {
		return
	}
	out := l.outbound.Load()
	spi, last, at, ok := r.control.Last()
	if !ok || out == nil || out.SPI() != spi || r.spi == spi && r.highest >= last || r.tries >= maxTail {
		return
	}
	if r.rose.After(at) {
		at = r.rose
	}
	if d := r.tailAfter() - now.Sub(at); d > 0 {
		r.tail.in(d)
		return
	}
	r.tries++
	silent = true
	r.control.Lapse()
	if e, ok := l.flight.tail(out, r.highest); ok {
		r.again = append(r.again, e)
		l.queue.Wake()
		l.wake()
	}
}

func (r *recovery) stop() {
	r.mu.Lock()
	r.stopped = true
	for _, e := range r.again {
		e.packet.Release()
	}
	r.again = nil
	r.mu.Unlock()
}

// resendNow sends again what is known to be lost. It runs on the pump.
func (l *Link) resendNow(b *buffers) {
	for _, e := range l.recovery.take() {
		n := bits.OnesCount64(e.pieces)
		l.resent.Add(uint64(n))
		l.resentBytes.Add(uint64(e.size * n / e.n))
		l.seal(b, e.packet, &e.sent, func(i int) bool { return i < 64 && e.pieces&(1<<i) != 0 })
		if len(b.sealed) >= flushBytes {
			l.flush(b)
		}
	}
	l.flush(b)
}
