// Package link joins the security associations of two terminals to whichever
// carrier takes their packets now.
//
// A Link outlives its SAs, which rekeying replaces, and its carriers, which a
// move replaces: the link is what stays. Outgoing inner packets wait in its
// queue while there is no carrier, so a move delays them and loses none that
// had not left.
package link

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/mobility/pathmtu"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

// Timing of our own; nothing in an RFC sets these.
const (
	// AckDelay is how long the receiver of data may say nothing. Then it sends
	// an empty ESP packet, so that the sender can take silence for evidence.
	AckDelay = 100 * time.Millisecond
	// MinSilence is the shortest time after which unanswered data means that
	// the path is broken; three round trips where that is longer.
	MinSilence = 300 * time.Millisecond
	// retireAfter is how long an SA still receives that has been removed.
	retireAfter = 5 * time.Second
)

// DefaultQueueBytes bounds the packets that wait for a carrier.
const DefaultQueueBytes = 16 << 20

// A Config says what a Link does with what comes out of it. Its functions are
// called on the carriers' readers and must not block for long.
type Config struct {
	Logger *slog.Logger // nil discards
	Table  *Table       // where the link's inbound SPIs are registered; required

	// Deliver takes inner packets, which are valid until it returns, with what
	// is known of the way they came.
	Deliver func(pkts [][]byte, way tunnel.Way)
	// Recover has lost packets sent again, and what has come reported, on
	// encapsulations of datagrams. The peer must do it too.
	Recover bool
	// Registration takes an inner packet to UDP port 434, valid until it
	// returns, with the carrier that it came by and the size of its ESP packet.
	Registration func(ip []byte, c transports.Carrier, size int)
	// Silence is called, on a goroutine of its own, when data has been
	// unanswered for three round trips. Nil where nobody acts on it.
	Silence func()
	// Elsewhere is called, on the carrier's reader, when the newest packet of all
	// so far came by another carrier than the one in use; size is that of its
	// ESP packet. May be nil.
	Elsewhere func(c transports.Carrier, size int)
	// SendFailed is called when a carrier refuses data for another reason than
	// being closed. May be nil.
	SendFailed func(c transports.Carrier, err error)

	// Discover has the size of inner packets follow the path on encapsulations of
	// datagrams, by probes that the peer answers.
	Discover bool
	// Answer is called, on the carrier's reader, with the number of a question that was
	// answered; see Ask. May be nil.
	Answer func(number uint32)
	// PathMTU is called, on a goroutine of its own, when the largest IP packet that the
	// path in use takes was found, in bytes. May be nil.
	PathMTU func(mtu int)

	MTU         int // largest inner packet on a datagram encapsulation that is not searched, in bytes
	QueueBytes  int // 0 means DefaultQueueBytes
	FlightBytes int // most that is kept for a replay; 0 means DefaultFlightBytes

	// Duplicate sends small datagrams of UDP inside twice, on encapsulations that
	// lose packets.
	Duplicate bool
}

// Stats counts what went through a link since it was made.
type Stats struct {
	BytesSent, BytesReceived     uint64 // inner packets
	PacketsSent, PacketsReceived uint64 // ESP packets
	PacketsTooBig                uint64 // inner packets that no carrier could take
	PacketsFull                  uint64 // inner packets dropped as the queue was full
	PacketsResent, BytesResent   uint64 // ESP packets that replayed what a move had lost

	// By now, in bytes of inner packets:
	BytesWaiting int // for a carrier
	BytesKept    int // for a replay
}

// A Link carries inner packets between two terminals. Its methods may be called
// from several goroutines.
type Link struct {
	c     Config
	log   *slog.Logger
	queue *tunnel.Queue

	outbound atomic.Pointer[esp.Outbound]
	path     atomic.Pointer[path]
	sending  atomic.Bool  // the pump is inside a carrier's Send
	pumps    atomic.Int64 // the pump's generation; older ones end

	mu        sync.Mutex
	changed   sync.Cond // path, credit or outbound changed, a report came, or the link was closed
	changes   atomic.Uint64
	children  map[uint32]*inbound
	retired   map[uint32]*time.Timer // inbound SPIs that receive a little longer
	installed uint64                 // pairs of SAs so far
	closed    bool
	wg        sync.WaitGroup

	alarms   alarms
	life     liveness
	flight   flight
	recovery recovery
	meter    meter
	mtu      discovery
	discover atomic.Bool

	replay  atomic.Pointer[replay] // asked for, not done yet
	replays atomic.Uint64          // how often it was asked for
	// replayed is when it was last asked for, Unix nanoseconds.
	replayed atomic.Int64

	bytesSent, bytesReceived, packetsSent, packetsReceived atomic.Uint64
	tooBig, resent, resentBytes                            atomic.Uint64

	pauseOut, pauseIn pause
}

// path is a carrier with what is known of it.
type path struct {
	carrier   transports.Carrier
	inner     atomic.Int32 // largest inner packet to send whole
	searched  bool         // inner follows the search of discovery
	needed    atomic.Bool  // and somebody wants to know
	validated atomic.Bool
	credit    atomic.Int64 // bytes that may be sent before validation

	from atomic.Pointer[transports.Carrier] // by which the peer's packets come, if that is another; nil: none

	also atomic.Pointer[second] // by which everything is sent too; nil: none
}

// New makes a link without SAs and without a carrier and starts its pump.
func New(c Config) *Link {
	if c.QueueBytes == 0 {
		c.QueueBytes = DefaultQueueBytes
	}
	if c.FlightBytes == 0 {
		c.FlightBytes = DefaultFlightBytes
	}
	l := &Link{c: c, log: c.Logger, queue: tunnel.NewQueue(c.QueueBytes), children: make(map[uint32]*inbound), retired: make(map[uint32]*time.Timer)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.changed.L = &l.mu
	l.life.link, l.flight.link, l.recovery.link, l.mtu.link = l, l, l, l
	for a, f := range map[*alarm]func(){
		&l.life.ack: l.life.checkAck, &l.life.silence: l.life.checkSilence,
		&l.recovery.got.due: l.recovery.reportNow, &l.recovery.look: l.recovery.lookAgain, &l.recovery.tail: l.recovery.checkTail,
		&l.mtu.due: l.mtu.run, &l.mtu.later: l.mtu.answerNow,
	} {
		a.of, a.f = &l.alarms, f
	}
	l.recovery.on.Store(c.Recover)
	l.discover.Store(c.Discover)
	l.life.rtt.Store(int64(MinSilence / 3))
	l.startPump()
	return l
}

// Close drops what is queued, removes the SAs and waits for the link's
// goroutines. The carriers are not the link's and must be closed before, or
// the wait may be long.
func (l *Link) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	for spi := range l.children {
		l.c.Table.remove(spi)
	}
	clear(l.children)
	for spi, t := range l.retired {
		t.Stop()
		l.c.Table.remove(spi)
	}
	clear(l.retired)
	l.changed.Broadcast()
	l.mu.Unlock()
	l.queue.Close()
	l.alarms.stop()
	l.recovery.stop()
	l.wg.Wait()
	l.flight.stop()
}

// Install adds a pair of SAs. An initiator's child carries data at once; a
// responder's replacement only when the peer was heard on it, or when the
// child it replaces is removed (RFC 7296, Section 2.8: the responder may not
// send before the initiator is ready to receive).
func (l *Link) Install(child ike.Child) error {
	in, err := esp.NewInbound(child.InboundSPI, child.Algorithm, child.InboundKey, child.ESN, 0)
	if err != nil {
		return fmt.Errorf("install inbound SA: %w", err)
	}
	out, err := esp.NewOutbound(child.OutboundSPI, child.Algorithm, child.OutboundKey, child.ESN)
	if err != nil {
		return fmt.Errorf("install outbound SA: %w", err)
	}
	e := &inbound{link: l, in: in, out: out}
	defer l.mtu.run() // a path may have waited for it
	l.mu.Lock()
	defer l.mu.Unlock()
	l.installed++
	e.order = l.installed
	if l.closed {
		return net.ErrClosed
	}
	l.children[child.InboundSPI] = e
	l.c.Table.add(child.InboundSPI, e)
	_, replaces := l.children[child.Replaces]
	if child.Role == ike.RoleResponder && replaces {
		e.waiting.Store(true)
		return nil
	}
	l.outbound.Store(out)
	l.changed.Broadcast()
	return nil
}

// Remove takes away the pair of SAs with this inbound SPI: it sends no more,
// and receives only what is still under way. If it was the one
// in use, the newest other pair takes over.
func (l *Link) Remove(inboundSPI uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.children[inboundSPI]
	if e == nil {
		return
	}
	delete(l.children, inboundSPI)
	// The word that an SA is gone may overtake packets that were sent on it.
	l.retired[inboundSPI] = time.AfterFunc(retireAfter, func() {
		l.c.Table.remove(inboundSPI)
		l.mu.Lock()
		delete(l.retired, inboundSPI)
		l.mu.Unlock()
	})
	if l.outbound.Load() != e.out {
		return
	}
	var newest *inbound
	for _, other := range l.children {
		if newest == nil || other.order > newest.order {
			newest = other
		}
	}
	if newest == nil {
		l.outbound.Store(nil)
	} else {
		newest.waiting.Store(false)
		l.outbound.Store(newest.out)
	}
	l.changed.Broadcast()
}

// promote makes the pair that the peer was heard on the one to send with.
func (l *Link) promote(e *inbound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.waiting.Swap(false) && l.children[e.in.SPI()] == e {
		l.outbound.Store(e.out)
		l.changed.Broadcast()
	}
}

// Use sends data over c from now on. Unless validated, no more than credit
// bytes, and three times what c brings in from now on, are sent before Validate
// (RFC 9000, Section 8.1). A nil c holds the data back.
func (l *Link) Use(c transports.Carrier, validated bool, credit int) {
	var p *path
	if c != nil {
		inner := c.MTU() - esp.MaxOverhead
		p = &path{carrier: c, searched: l.discover.Load() && datagrams(c)}
		switch {
		case p.searched:
			inner = min(inner, pathmtu.BaseSize-esp.MaxOverhead)
		case datagrams(c):
			inner = min(inner, l.c.MTU)
		}
		p.inner.Store(int32(inner))
		p.validated.Store(validated || c.Validated())
		p.credit.Store(int64(credit))
	}
	l.mu.Lock()
	if old := l.path.Load(); old != nil && p != nil && old.carrier == c {
		if validated {
			old.validated.Store(true)
		}
		l.changed.Broadcast()
		l.mu.Unlock()
		l.mtu.run()
		return
	}
	l.path.Store(p)
	// Data that is on the old path is not evidence against the new one.
	l.life.forget()
	l.changes.Add(1)
	l.changed.Broadcast()
	stuck := l.sending.Load() && !l.closed
	l.mu.Unlock()
	l.mtu.use(p)
	if stuck {
		// The pump may sit in a stream whose peer is gone. Its replacement
		// takes what is queued; it ends itself when that stream is closed.
		l.startPump()
	}
}

// Charge takes n bytes, which the owner has sent by c itself, off what may be
// sent there before Validate.
func (l *Link) Charge(c transports.Carrier, n int) {
	if p := l.path.Load(); p != nil && p.carrier == c && !p.validated.Load() {
		p.credit.Add(-int64(n))
	}
}

// Validate lifts the limit on the carrier in use, if it is c.
func (l *Link) Validate(c transports.Carrier) {
	if p := l.path.Load(); p != nil && p.carrier == c && !p.validated.Swap(true) {
		l.wake()
		l.mtu.run()
	}
}

// Carrier is the carrier in use, or nil.
func (l *Link) Carrier() transports.Carrier {
	if p := l.path.Load(); p != nil {
		return p.carrier
	}
	return nil
}

// SetRoundTrip tells the path's round trip, which the silence limit follows.
func (l *Link) SetRoundTrip(d time.Duration) { l.life.rtt.Store(int64(d)) }

// Output queues an inner packet. It never blocks and takes p over.
func (l *Link) Output(p tunnel.Packet) {
	if !l.queue.Put(p) {
		p.Release()
	}
}

// ErrNoSA tells that no pair of SAs is installed.
var ErrNoSA = errors.New("no security association")

// Seal protects one inner packet for the owner to send itself; a registration
// needs its own carrier. padTo is the size that the ESP packet shall have, zero
// for its natural size.
func (l *Link) Seal(inner []byte, padTo int) ([]byte, error) {
	out := l.outbound.Load()
	if out == nil {
		return nil, ErrNoSA
	}
	return out.Seal(nil, inner, padTo)
}

// FullSize is the size of the ESP packets of data on a new path by an encapsulation
// of datagrams: what a padded registration is padded to.
func (l *Link) FullSize() int {
	if l.discover.Load() {
		return pathmtu.BaseSize
	}
	return l.c.MTU + esp.MaxOverhead
}

// ReceiveState is what has arrived on the pair of SAs in use.
func (l *Link) ReceiveState() regmsg.ReceiveState {
	out := l.outbound.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.children {
		if e.out == out {
			s := e.in.State()
			return regmsg.ReceiveState{SPI: e.in.SPI(), Highest: s.Highest, Missing: s.Missing}
		}
	}
	return regmsg.ReceiveState{}
}

// Stats tells what went through.
func (l *Link) Stats() Stats {
	return Stats{
		BytesSent: l.bytesSent.Load(), BytesReceived: l.bytesReceived.Load(),
		PacketsSent: l.packetsSent.Load(), PacketsReceived: l.packetsReceived.Load(),
		PacketsTooBig: l.tooBig.Load(), PacketsFull: l.queue.Dropped(), PacketsResent: l.resent.Load(), BytesResent: l.resentBytes.Load(),
		BytesWaiting: l.queue.Bytes(), BytesKept: l.flight.kept(),
	}
}

func (l *Link) wake() {
	l.mu.Lock()
	l.changes.Add(1)
	l.changed.Broadcast()
	l.mu.Unlock()
}
