package link

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// A Table finds the inbound SA of an ESP packet by its SPI, whatever carrier
// and address the packet came by.
type Table struct {
	spis sync.Map // uint32 to *inbound

	// Strays counts packets that no SA accepted: unknown SPI, replayed, forged
	// or malformed. Unclaimed are those of unknown SPIs, Replayed the replayed ones.
	Strays, Unclaimed, Replayed atomic.Uint64

	// Unknown, if set before the first packet, is told of one packet at most of
	// each call of Receive whose SPI no SA has, and its size in bytes. It is called
	// by carriers' readers.
	Unknown func(c transports.Carrier, spi uint32, size int)
}

// inbound is one pair of SAs as the receiving side sees it.
type inbound struct {
	link    *Link
	in      *esp.Inbound
	out     *esp.Outbound
	waiting atomic.Bool // out is not used before a packet came in
	order   uint64      // of installation in its link
}

func (t *Table) add(spi uint32, e *inbound) { t.spis.Store(spi, e) }
func (t *Table) remove(spi uint32)          { t.spis.Delete(spi) }

// Known tells whether an inbound SA of a link has the SPI.
func (t *Table) Known(spi uint32) bool {
	_, ok := t.spis.Load(spi)
	return ok
}

// NewSPI draws an SPI that no link of the table uses. The values up to 255 are
// reserved (RFC 4303, Section 2.1).
func (t *Table) NewSPI() uint32 {
	var b [4]byte
	for {
		rand.Read(b[:])
		spi := binary.BigEndian.Uint32(b[:])
		if _, used := t.spis.Load(spi); spi > 255 && !used {
			return spi
		}
	}
}

// batch is what one call of Receive works in.
type batch struct {
	pkts, opened, data, notes [][]byte
}

var batchPool = sync.Pool{New: func() any { return new(batch) }}

// Receive opens the ESP packets among ps and hands what is inside to their
// links. It is called from carriers' readers; ps may be written over.
func (t *Table) Receive(c transports.Carrier, ps []transports.Packet) {
	b := batchPool.Get().(*batch)
	var e *inbound
	size := 0
	told := t.Unknown == nil
	for i := range ps {
		if ps[i].Kind != transports.KindESP {
			continue
		}
		spi, ok := esp.SPI(ps[i].Data)
		if !ok {
			t.Strays.Add(1)
			continue
		}
		if e == nil || e.in.SPI() != spi {
			if e != nil {
				t.open(e, c, b, size)
				size = 0
			}
			e = nil
			if v, ok := t.spis.Load(spi); ok {
				e = v.(*inbound)
			} else {
				t.Strays.Add(1)
				t.Unclaimed.Add(1)
				if !told {
					told = true
					t.Unknown(c, spi, len(ps[i].Data))
				}
				continue
			}
		}
		b.pkts = append(b.pkts, ps[i].Data)
		size += len(ps[i].Data)
	}
	if e != nil {
		t.open(e, c, b, size)
	}
	clear(b.pkts)
	clear(b.opened)
	clear(b.data)
	clear(b.notes)
	batchPool.Put(b)
}

// newest holds for the packet with the highest sequence number so far. One that
// was caught and is delivered later from somewhere else is not it.
func (e *inbound) newest(pkt []byte) bool {
	low, ok := esp.SequenceLow(pkt)
	return ok && uint32(e.in.State().Highest) == low
}

// open opens the packets gathered in b, all of one SA.
func (t *Table) open(e *inbound, c transports.Carrier, b *batch, size int) {
	l := e.link
	opened, notes, dropped := e.in.OpenBatch(b.pkts, b.opened[:0], b.notes[:0])
	b.opened, b.notes = opened, notes
	defer func() { b.pkts, b.opened, b.data, b.notes = b.pkts[:0], opened[:0], b.data[:0], notes[:0] }()
	t.Strays.Add(uint64(dropped.Total()))
	t.Replayed.Add(uint64(dropped.Replayed))
	authentic := len(b.pkts) - dropped.Total()
	if authentic == 0 {
		return
	}
	if e.waiting.Load() {
		l.promote(e)
	}
	p := l.path.Load()
	current := p.hears(c)
	if current && p.carrier == c && !p.validated.Load() {
		// A registration is answered, with as much.
		credit := 3 * size
		for _, ip := range opened {
			if regmsg.IsRegistration(ip) {
				credit -= size / len(b.pkts)
			}
		}
		p.credit.Add(int64(credit))
		l.wake()
	}
	l.packetsReceived.Add(uint64(authentic))
	bytes, registrations := 0, 0
	for _, ip := range opened {
		switch {
		case regmsg.IsRegistration(ip):
			registrations++
			if l.c.Registration != nil {
				l.c.Registration(ip, c, size/max(len(b.pkts), 1))
			}
		default:
			b.data = append(b.data, ip)
			bytes += len(ip)
		}
	}
	// A registration says itself what it is about.
	if last := b.pkts[len(b.pkts)-1]; !current && registrations == 0 && l.c.Elsewhere != nil && e.newest(last) {
		l.c.Elsewhere(c, len(last))
	}
	// A dummy packet, which opens to nothing, says only that the peer is there.
	answer := current && (authentic > len(b.data) || !l.recovery.answers(p.carrier))
	l.life.heard(answer, len(b.data) > 0)
	understood, echoes := 0, 0
	for _, n := range notes {
		if r, ok := parseReport(n); ok {
			l.recovery.reported(r)
			understood++
		} else if m, ok := parseEcho(n); ok {
			l.echoed(m, c, len(n)+esp.NoteOverhead)
			understood++
			echoes += len(n) + esp.NoteOverhead
		}
	}
	if len(opened) == 0 && understood == 0 && size >= probeSize*len(b.pkts) {
		l.life.probed(authentic)
	}
	way := l.recovery.received(e, c, max(size-echoes, 0), len(b.data))
	if len(b.data) > 0 {
		l.bytesReceived.Add(uint64(bytes))
		l.c.Deliver(b.data, way)
	}
}
