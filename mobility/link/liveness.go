package link

import (
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/transports"
)

// liveness makes silence mean something. Who receives data and has nothing to
// send answers with an empty packet after AckDelay (RFC 4303, Section 2.6);
// so who sent data and heard nothing for three round trips, at least
// MinSilence, knows that the path is broken. An idle link sends nothing.
//
// Noise must not look like that. One packet and its answer are lost easily, so when
// the answer is overdue the sender begins to ask: with empty packets padded to
// probeSize, which are answered at once. Three pairs go out, and only when
// enough time for an answer has passed after them is silence declared. Where a
// fifth of the packets is lost each way, all of them fail in 1 of 70,000
// such cases. A process that was not run for a while
// finds its timer late, and asks and waits all the same before it believes it.
//
// The data path only stores times; the timers run while there is traffic.
type liveness struct {
	link *Link
	rtt  atomic.Int64

	dataIn     atomic.Int64 // when data last came in; this and the next by package clock
	in         atomic.Int64 // when anything authentic last came in
	out        atomic.Int64 // when anything last went out
	unanswered atomic.Int64 // when data went out with nothing heard since; 0: none

	ack, silence alarm

	// Of checkSilence, which never runs twice at a time.
	asked     int   // pairs of probes sent
	askedFor  int64 // the value of unanswered that they are about
	lastAsked int64
}

// sent notes that data has gone out.
func (v *liveness) sent() {
	now := clock.Now()
	v.out.Store(now)
	v.link.pauseOut.data(now)
	if v.link.c.Silence == nil {
		return
	}
	if v.unanswered.CompareAndSwap(0, now) {
		v.silence.in(v.overdue())
	}
}

// overdue is when an answer should have been there: after the delay that the
// peer may take and a round trip.
func (v *liveness) overdue() time.Duration {
	limit := v.limit()
	return min(max(limit/3, AckDelay+time.Duration(v.rtt.Load())), limit/2)
}

// sentOther notes that something went out that expects no answer.
func (v *liveness) sentOther() { v.out.Store(clock.Now()) }

// heard notes that authentic packets came in. Only what comes by the carrier
// in use is an answer, and speaks for it.
func (v *liveness) heard(answer, data bool) {
	now := clock.Now()
	v.in.Store(now)
	if answer {
		v.unanswered.Store(0)
	}
	if !data {
		return
	}
	v.dataIn.Store(now)
	v.link.pauseIn.data(now)
	v.ack.in(AckDelay)
}

// forget takes back that an answer is expected.
func (v *liveness) forget() { v.unanswered.Store(0) }

func (v *liveness) limit() time.Duration {
	return max(MinSilence, 3*time.Duration(v.rtt.Load()))
}

func (v *liveness) checkAck() {
	in := v.dataIn.Load()
	if age := clock.Since(in); age < AckDelay {
		// Data came since the timer was set; it has its own time to be answered.
		v.ack.in(AckDelay - age)
		return
	}
	if v.out.Load() > in {
		return
	}
	v.sendEmpty(0)
}

// sendEmpty sends a packet without content by the carrier in use.
func (v *liveness) sendEmpty(padTo int) {
	l := v.link
	p := l.path.Load()
	if p == nil {
		return
	}
	b, err := l.Seal(nil, padTo)
	if err != nil {
		return
	}
	if !p.spend(len(b)) {
		return
	}
	if p.carrier.Send([]transports.Packet{{Kind: transports.KindESP, Urgent: true, Data: b}}) == nil {
		l.packetsSent.Add(1)
		v.sentOther()
	}
}

const (
	// probeSize is the size in bytes of the ESP packet of a probe. An answer,
	// and any other empty packet, is smaller.
	probeSize = 64
	// probePairs is how often the sender asks.
	probePairs = 5
)

// probed answers n probes, each: a peer that asks often has reason to.
func (v *liveness) probed(n int) {
	for range n {
		v.sendEmpty(0)
	}
}

func (v *liveness) checkSilence() {
	since := v.unanswered.Load()
	if since == 0 {
		return
	}
	if since != v.askedFor {
		v.asked, v.askedFor = 0, since
	}
	limit, now := v.limit(), clock.Now()
	wait := v.overdue() - time.Duration(now-since)
	switch {
	case v.asked == 0 && wait > 0:
	case v.asked < probePairs:
		if v.asked == 0 {
			v.link.mtu.suspect()
		}
		v.sendEmpty(probeSize)
		v.sendEmpty(probeSize)
		v.asked++
		v.lastAsked = now
		if wait = limit / 48; v.asked == probePairs {
			wait = max(limit-time.Duration(now-since), limit*5/12)
		}
	default:
		wait = max(limit-time.Duration(now-since), limit*5/12-time.Duration(now-v.lastAsked))
	}
	if wait > 0 {
		v.silence.in(wait)
		return
	}
	v.unanswered.Store(0)
	v.link.c.Silence()
}
