package link

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

const (
	// flushBytes is how much is sealed before it is handed to the carrier: as
	// much as one segmentation-offload send takes.
	flushBytes = 60 << 10
	takeMax    = 32
	// smallPackets go at a time between the pieces of a larger one.
	smallPackets = 4
	// retryAfter is the wait before a carrier that refused data is tried again
	// when no other has come into use.
	retryAfter = 100 * time.Millisecond
)

// buffers are what a pump works in. An idle link holds none.
type buffers struct {
	cut, sealed []byte
	segs, esp   [][]byte
	again       []byte // cut to another size
	large       [][]byte
	recut       bool   // segs were cut twice
	twice       []bool // of esp, if Config.Duplicate says so
	pkts        []transports.Packet
	replays     uint64 // Link.replays when the first of sealed was sealed
	path        *path  // that it was sealed for
	out         *esp.Outbound
	pacer       *pacer          // while a replay leaves
	taken       []tunnel.Packet // from the queue, the one that leaves first
	small       bool            // holds what goes between the pieces of another packet
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
		l.waitTurn()
		again, n := l.recovery.pending(), 0
		if again {
			// What is lost comes first, but for what must not wait behind much.
			n = l.queue.TakeSmall(ps, nil)
		} else {
			var err error
			if n, err = l.queue.Take(ps); err != nil {
				return
			}
		}
		b := bufferPool.Get().(*buffers)
		for l.replayNow(b) && l.replay.Load() != nil {
		}
		for i := range ps[:n] {
			l.bytesSent.Add(uint64(ps[i].Len()))
			b.taken = ps[i:n]
			l.seal(b, ps[i], nil, nil)
			b.taken, ps[i] = nil, tunnel.Packet{}
			if len(b.sealed) >= flushBytes || i == n-1 {
				l.flush(b)
			}
		}
		if again {
			l.resendNow(b)
		}
		bufferPool.Put(b)
	}
}

// seal cuts a packet to what the path takes, appends the sealed pieces to b
// and keeps the packet for a replay. Of a packet that was sent before, only the
// pieces that are missing are sealed, if the path cuts it as that one did.
func (l *Link) seal(b *buffers, pkt tunnel.Packet, before *sent, missing func(i int) bool) {
	p := l.waitPath(0)
	if p == nil {
		pkt.Release()
		return
	}
	var err error
	inner := int(p.inner.Load())
	if pkt.Len() > inner && !p.needed.Load() {
		l.mtu.need(p)
	}
	b.cut, b.segs, err = pkt.AppendCut(b.cut[:0], inner, b.segs[:0])
	if err != nil {
		pkt.Release()
		l.tooBig.Add(1)
		l.log.Debug("packet dropped", slog.Any("err", err))
		return
	}
	mask := uint64(0)
	b.recut = false
	switch {
	case before == nil, before.recut:
	case before.mtu == inner:
		b.segs, mask = before.pick(b.segs, missing)
	case before.mtu > inner && before.mtu < maxDatagram && p.searched:
		if b.recut = b.cutAgain(pkt, inner, before, missing); !b.recut {
			b.cut, b.segs, _ = pkt.AppendCut(b.cut[:0], inner, b.segs[:0]) // as above
		}
	}
	// What waited for the move, or is sent again after it, is not late by
	// TCP's measure.
	if late := time.Duration(l.replayed.Load() - pkt.Queued()); late > 0 && pkt.Queued() > 0 {
		for _, s := range b.segs {
			tunnel.Delay(s, late)
		}
	}
	if b.pacer != nil || len(b.segs) > 64 || b.recut || mask == 0 && before != nil && before.mtu == inner {
		l.sealPieces(b, pkt, p, inner, b.segs, mask, before)
		return
	}
	// Where the path's rate is followed, packets are numbered when they may leave:
	// what overtook them would make them look lost.
	if mask == 0 {
		mask = 1<<len(b.segs) - 1
	}
	for rest := b.segs; len(rest) > 0; {
		n := l.recovery.pieces(p, rest)
		if n < len(rest) || len(rest) < len(b.segs) {
			l.flush(b)
			l.waitTurn()
			l.sendSmall(b)
			now := l.waitPath(0)
			if now == nil {
				break
			}
			if int(now.inner.Load()) < inner {
				l.seal(b, pkt, nil, nil) // smaller pieces
				return
			}
			p = now
		}
		part := lowest(mask, n)
		mask &^= part
		l.sealPieces(b, pkt.Retain(), p, inner, rest[:n], part, before)
		if rest = rest[n:]; len(rest) > 0 {
			l.flush(b)
		}
	}
	pkt.Release()
}

// sendSmall sends what must not wait for the rest of the packet in b: on a slow
// path that can take a good part of a second.
func (l *Link) sendSmall(b *buffers) {
	if b.small {
		return
	}
	var ps [smallPackets]tunnel.Packet
	n := l.queue.TakeSmall(ps[:], b.taken)
	if n == 0 {
		return
	}
	s := bufferPool.Get().(*buffers)
	s.small = true
	for _, p := range ps[:n] {
		l.bytesSent.Add(uint64(p.Len()))
		l.seal(s, p, nil, nil)
	}
	l.flush(s)
	s.small = false
	bufferPool.Put(s)
	l.waitTurn()
}

// maxDatagram is more than any encapsulation of datagrams carries, in bytes.
const maxDatagram = 10000

// cutAgain leaves in b.segs what is missing of a packet that was cut to a larger size
// before, cut to inner bytes. Where it gives false they are of no use.
func (b *buffers) cutAgain(pkt tunnel.Packet, inner int, before *sent, missing func(i int) bool) bool {
	buf, large, err := pkt.AppendCut(b.again[:0], before.mtu, b.large[:0])
	b.again, b.large = buf, large
	if err != nil {
		return false
	}
	large, _ = before.pick(large, missing)
	buf, segs := b.cut[:0], b.segs[:0]
	for _, s := range large {
		if buf, segs, err = tunnel.Cut(s, inner, buf, segs); err != nil {
			return false
		}
	}
	b.cut, b.segs = buf, segs
	return true
}

// lowest is the n lowest bits that are set in mask.
func lowest(mask uint64, n int) (low uint64) {
	for range n {
		low |= mask & -mask
		mask &= mask - 1
	}
	return low
}

// sealPieces seals pieces of a packet that was cut to inner bytes, which was sent
// before if that is not nil, and takes the packet over.
func (l *Link) sealPieces(b *buffers, pkt tunnel.Packet, p *path, inner int, segs [][]byte, mask uint64, before *sent) {
	out := l.outbound.Load()
	if out == nil || len(segs) == 0 {
		pkt.Release()
		return
	}
	if len(b.esp) == 0 {
		b.replays, b.path, b.out = l.replays.Load(), p, out
	}
	n, size := len(b.esp), 0
	var err error
	b.sealed, b.esp, err = out.SealBatch(b.sealed, segs, b.esp)
	if err != nil {
		l.log.Warn("packet not sealed", slog.Any("err", err))
	}
	if len(b.esp) == n {
		pkt.Release()
		return
	}
	for i, s := range segs {
		size += len(s)
		if l.c.Duplicate && n+i < len(b.esp) {
			b.twice = append(b.twice, twice(s))
		}
	}
	low, _ := esp.SequenceLow(b.esp[n])
	now := clock.Now()
	born := now
	if before != nil {
		born = before.born
	}
	l.flight.add(sent{packet: pkt, size: size, out: out, first: widen(low, out.Sequence()), n: len(b.esp) - n, mtu: inner, recut: b.recut, mask: mask, by: p.carrier, at: now, born: born, reports: l.recovery.answers(p.carrier)})
}

// pick leaves of a packet's pieces those that are missing, by their places in e,
// and gives them as a mask; 0 stands for all of them.
func (e *sent) pick(segs [][]byte, missing func(i int) bool) (kept [][]byte, mask uint64) {
	kept = segs[:0]
	i := 0
	for k, s := range segs {
		if e.mask != 0 && (k >= 64 || e.mask&(1<<k) == 0) {
			continue
		}
		if missing(i) {
			kept = append(kept, s)
			if k < 64 {
				mask |= 1 << k
			}
		}
		i++
	}
	if len(segs) > 64 {
		mask = 0 // which these are is not remembered
	}
	return kept, mask
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
		} else if b.pacer == nil {
			changes := l.changes.Load()
			if d := l.recovery.turn(p, time.Now()); d > 0 {
				if !l.waitChange(changes, d) {
					break
				}
				continue
			}
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
			l.sendAgain(b, p, len(b.pkts)-len(pkts), pkts[:n])
			l.count(b, p, pkts[:n], len(pkts) == n)
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
	b.sealed, b.esp, b.twice, b.pkts, b.path, b.out = b.sealed[:0], b.esp[:0], b.twice[:0], b.pkts[:0], nil, nil
}

// count notes that packets have left by p, and whether they are the last of b.
func (l *Link) count(b *buffers, p *path, pkts []transports.Packet, last bool) {
	n := 0
	for i := range pkts {
		n += len(pkts[i].Data)
	}
	if b.out != nil {
		low, _ := esp.SequenceLow(pkts[0].Data)
		first := widen(low, b.out.Sequence())
		l.recovery.sent(p.carrier, b.out.SPI(), first, first+uint64(len(pkts)-1), n, last && l.queue.Bytes() == 0, true)
	}
	if b.pacer != nil {
		b.pacer.bytes += n
		return
	}
	l.meter.sent(clock.Now(), l.life.in.Load(), n)
}

// datagrams holds for carriers that take what they are given: a stream slows
// its sender down by itself.
func datagrams(c transports.Carrier) bool {
	return c.Name().Datagrams()
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

// spend uses up the credit for a packet of n bytes; false says that there is not
// enough.
func (p *path) spend(n int) bool {
	if p.validated.Load() {
		return true
	}
	if p.credit.Add(-int64(n)) < 0 {
		p.credit.Add(int64(n))
		return false
	}
	return true
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

// waitTurn waits until the path takes more.
func (l *Link) waitTurn() {
	for {
		changes, p := l.changes.Load(), l.path.Load()
		if p == nil || l.replay.Load() != nil {
			return
		}
		if d := l.recovery.turn(p, time.Now()); d == 0 || !l.waitChange(changes, d) {
			return
		}
	}
}

// waitChange waits for d, but no longer than until something changes since
// Link.changes was read. It returns false when the link is closed.
func (l *Link) waitChange(changes uint64, d time.Duration) bool {
	return l.waitWhile(d, func() bool { return l.changes.Load() == changes })
}

// waitOther waits until another path than p is in use, or for d. It returns
// false when the link is closed.
func (l *Link) waitOther(p *path, d time.Duration) bool {
	return l.waitWhile(d, func() bool { return l.path.Load() == p })
}

// waitWhile waits as long as a condition holds, which Link.changed tells of, but
// no longer than d. It returns false when the link is closed.
func (l *Link) waitWhile(d time.Duration, holds func() bool) bool {
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
	for !l.closed && !expired && holds() {
		l.changed.Wait()
	}
	return !l.closed
}
