package link

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

const (
	// flushBytes is how much is sealed before it is handed to the carrier: as
	// much as one segmentation-offload send takes.
	flushBytes = 60 << 10
	takeMax    = 32
	// retryAfter is the wait before a carrier that refused data is tried again
	// when no other has come into use.
	retryAfter = 100 * time.Millisecond
)

// buffers are what a pump works in. An idle link holds none.
type buffers struct {
	cut, sealed []byte
	segs, esp   [][]byte
	pkts        []transports.Packet
	replays     uint64 // Link.replays when the first of sealed was sealed
	path        *path  // that it was sealed for
	out         *esp.Outbound
	pacer       *pacer // while a replay leaves
}

var bufferPool = sync.Pool{New: func() any {
	return &buffers{
		cut:    make([]byte, 0, 80<<10),
		sealed: make([]byte, 0, 160<<10),
	}
}}

func (l *Link) startPump() {
	generation := l.pumps.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.wg.Go(func() { l.pump(generation) })
}

// pump takes packets from the queue, cuts them to what the path takes, seals
// them and hands them to the carrier in batches.
func (l *Link) pump(generation int64) {
	ps := make([]tunnel.Packet, takeMax)
	for l.pumps.Load() == generation {
		n, err := l.queue.Take(ps)
		if err != nil {
			return
		}
		b := bufferPool.Get().(*buffers)
		l.replayNow(b)
		for i := range ps[:n] {
			l.bytesSent.Add(uint64(ps[i].Len()))
			l.seal(b, ps[i], 0, nil)
			ps[i] = tunnel.Packet{}
			if len(b.sealed) >= flushBytes || i == n-1 {
				l.flush(b)
			}
		}
		bufferPool.Put(b)
	}
}

// seal cuts a packet to what the path takes, appends the sealed pieces to b
// and keeps the packet for a replay. In a replay of a packet that was cut to
// mtu, only the pieces that are missing are sealed, if they can be told apart.
func (l *Link) seal(b *buffers, pkt tunnel.Packet, mtu int, missing func(i int) bool) {
	p := l.waitPath(0)
	out := l.outbound.Load()
	if p == nil || out == nil {
		pkt.Release()
		return
	}
	var err error
	b.cut, b.segs, err = pkt.AppendCut(b.cut[:0], p.inner, b.segs[:0])
	if err != nil {
		pkt.Release()
		l.tooBig.Add(1)
		l.log.Debug("packet dropped", slog.Any("err", err))
		return
	}
	if missing != nil && mtu == p.inner {
		kept := b.segs[:0]
		for i, s := range b.segs {
			if missing(i) {
				kept = append(kept, s)
			}
		}
		// The packet goes back into the flight whole: which of its pieces
		// these are is not remembered.
		b.segs = kept
	}
	// What waited for the move, or is sent again after it, is not late by
	// TCP's measure.
	if late := time.Duration(l.replayed.Load() - pkt.Queued().UnixNano()); late > 0 && pkt.Queued().Unix() > 0 {
		for _, s := range b.segs {
			tunnel.Delay(s, late)
		}
	}
	if len(b.esp) == 0 {
		b.replays, b.path, b.out = l.replays.Load(), p, out
	}
	n := len(b.esp)
	b.sealed, b.esp, err = out.SealBatch(b.sealed, b.segs, b.esp)
	if err != nil {
		l.log.Warn("packet not sealed", slog.Any("err", err))
	}
	if len(b.esp) == n {
		pkt.Release()
		return
	}
	low, _ := esp.SequenceLow(b.esp[n])
	l.flight.add(sent{packet: pkt, out: out, first: widen(low, out.Sequence()), n: len(b.esp) - n, mtu: p.inner, by: p.carrier, at: time.Now().UnixNano()})
}

// widen gives the sequence number with these low 32 bits that was the last of
// its kind when last was used.
func widen(low uint32, last uint64) uint64 {
	seq := last&^0xffffffff | uint64(low)
	if seq > last {
		seq -= 1 << 32
	}
	return seq
}

// flush sends the sealed packets. A carrier that fails before another is in
// use gets them again a little later: they have their sequence numbers, so a
// second copy dies in the peer's replay window. When a replay was asked for
// meanwhile, it takes care of them: they are part of the flight.
func (l *Link) flush(b *buffers) {
	for _, e := range b.esp {
		b.pkts = append(b.pkts, transports.Packet{Kind: transports.KindESP, Data: e})
	}
	for pkts := b.pkts; len(pkts) > 0; {
		p := l.waitPath(len(pkts[0].Data))
		if p == nil {
			break
		}
		if b.replays != l.replays.Load() && b.path.carrier != p.carrier {
			if low, ok := esp.SequenceLow(pkts[0].Data); ok {
				l.flight.hold(b.out, widen(low, b.out.Sequence()))
			}
			break
		}
		n := len(pkts)
		if b.pacer != nil && datagrams(p.carrier) {
			if d := b.pacer.wait(time.Now()); d > 0 {
				if !l.waitOther(p, d) {
					break
				}
				continue
			}
			n = b.pacer.piece(pkts)
		}
		n = p.allow(pkts[:n])
		l.life.sent()
		l.sending.Store(true)
		// The path may have changed before sending was seen.
		if l.path.Load() != p {
			l.sending.Store(false)
			continue
		}
		err := p.carrier.Send(pkts[:n])
		p.sendAlso(pkts[:n])
		l.sending.Store(false)
		if err == nil || errors.Is(err, transports.ErrTooBig) {
			if err != nil {
				l.tooBig.Add(1)
			}
			l.packetsSent.Add(uint64(n))
			l.count(b, pkts[:n])
			pkts = pkts[n:]
			continue
		}
		if !errors.Is(err, net.ErrClosed) && l.c.SendFailed != nil {
			l.c.SendFailed(p.carrier, err)
		}
		if !l.waitOther(p, retryAfter) {
			break
		}
	}
	clear(b.pkts)
	b.sealed, b.esp, b.pkts, b.path, b.out = b.sealed[:0], b.esp[:0], b.pkts[:0], nil, nil
}

// count notes that packets have left.
func (l *Link) count(b *buffers, pkts []transports.Packet) {
	n := 0
	for i := range pkts {
		n += len(pkts[i].Data)
	}
	if b.pacer != nil {
		b.pacer.bytes += n
		return
	}
	l.meter.sent(time.Now(), time.Unix(0, l.life.in.Load()), n)
}

// datagrams holds for carriers that take what they are given: a stream slows
// its sender down by itself.
func datagrams(c transports.Carrier) bool {
	return c.Name() == transports.UDP || c.Name() == transports.ESP
}

// allow says how many of pkts may be sent now and uses up the credit for them.
// The first of them may: waitPath has seen to that.
func (p *path) allow(pkts []transports.Packet) int {
	if p.validated.Load() {
		return len(pkts)
	}
	for i := range pkts {
		size := int64(len(pkts[i].Data))
		if i > 0 && p.credit.Load() < size {
			return i
		}
		p.credit.Add(-size)
	}
	return len(pkts)
}

// waitPath waits for a carrier, an SA, and the right to send n bytes. It
// returns nil when the link is closed.
func (l *Link) waitPath(n int) *path {
	if p := l.path.Load(); p != nil && p.validated.Load() && l.outbound.Load() != nil {
		return p
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		p := l.path.Load()
		if p != nil && l.outbound.Load() != nil {
			if p.validated.Load() || n == 0 || p.credit.Load() >= int64(n) {
				return p
			}
		}
		l.changed.Wait()
	}
	return nil
}

// waitOther waits until another path than p is in use, or for d. It returns
// false when the link is closed.
func (l *Link) waitOther(p *path, d time.Duration) bool {
	expired := false
	t := time.AfterFunc(d, func() {
		l.mu.Lock()
		expired = true
		l.changed.Broadcast()
		l.mu.Unlock()
	})
	defer t.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && !expired && l.path.Load() == p {
		l.changed.Wait()
	}
	return !l.closed
}
