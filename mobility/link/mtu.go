package link

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/mobility/pathmtu"
	"github.com/godwit-net/godwit/transports"
)

// discovery has the size of inner packets follow the path, on encapsulations of
// datagrams between two godwits. Each new path is looked at anew; where nothing is
// known yet, packets have the base size of RFC 8899.
type discovery struct {
	link *Link

	due   alarm // runs what is due
	later alarm // answers a question after a pause

	mu       sync.Mutex
	path     *path // that search is about
	search   *pathmtu.Search
	state    pathmtu.State // that Config.PathMTU was told of
	first    int           // what the next path may take, with all headers; 0: unknown
	question uint32        // to be answered later

	// The largest request that came by the carrier in use.
	by   transports.Carrier
	most int
}

// dataIdle is how long no data passes until a link is at rest, where results are
// not looked at again.
const dataIdle = 2 * time.Second

// A new path is looked at when packets have to be cut, but only after a while, and so
// many round trips at least: on a slow
// link a probe takes as long as many small packets, which shall not wait for it right
// after a move. Until then there is little to gain, as the base size costs bulk
// transfers two hundredths of a link's rate.
const (
	searchAfter = 3 * time.Second
	searchTrips = 10
)

// headers is what an encapsulation of datagrams adds to an ESP packet, in bytes.
func headers(c transports.Carrier) int {
	n := 40
	if a := c.Describe().Destination.Addr().Unmap(); a.Is4() || !a.IsValid() {
		n = 20
	}
	if c.Name().Base() == transports.UDP {
		n += 8
	}
	return n
}

// Discover switches the search for the path's MTU on or off for paths that come into
// use from now on: a peer that is no godwit answers no probe.
func (l *Link) Discover(on bool) { l.discover.Store(on) }

// ExpectMTU says what the next path took when it was last used, in bytes of IP packet;
// 0 for unknown. It is only tried first.
func (l *Link) ExpectMTU(mtu int) {
	l.mtu.mu.Lock()
	defer l.mtu.mu.Unlock()
	l.mtu.first = mtu
}

// PathMTU is the largest IP packet that the path in use takes, as far as is known, in
// bytes with all headers: out by what was answered, in by what came. They are 0 if
// unknown, as they are for streams and before larger packets were needed. State is that
// of the search.
func (l *Link) PathMTU() (out, in int, state pathmtu.State) {
	d := &l.mtu
	d.mu.Lock()
	defer d.mu.Unlock()
	p := l.path.Load()
	if d.search == nil || p == nil || p != d.path {
		return 0, 0, 0
	}
	if state = d.search.State(); state != pathmtu.Base {
		out = d.search.PathMTU()
	}
	if d.by != nil && p.hears(d.by) {
		in = d.most + headers(d.by)
	}
	return out, in, state
}

// use begins to look at a path.
func (d *discovery) use(p *path) {
	d.mu.Lock()
	if d.path != nil && d.search != nil && d.first == 0 {
		if s := d.search.State(); s == pathmtu.Searching || s == pathmtu.Complete {
			d.first = d.search.PathMTU()
		}
	}
	d.path, d.search, d.state = p, nil, 0
	if p != nil && p.searched {
		c := pathmtu.Config{Max: p.carrier.MTU(), Headers: headers(p.carrier)}
		if d.first > c.Headers {
			c.First = d.first - c.Headers
		}
		rtt := time.Duration(d.link.life.rtt.Load())
		d.search = pathmtu.New(time.Now().Add(max(searchAfter, searchTrips*rtt)), c)
	}
	d.first = 0
	d.mu.Unlock()
	d.run()
}

// run does what is due. It must not be called with locks of the link held.
func (d *discovery) run() {
	l := d.link
	d.mu.Lock()
	p, s := d.path, d.search
	if s == nil || !p.needed.Load() || l.path.Load() != p || !p.validated.Load() || l.outbound.Load() == nil {
		d.mu.Unlock()
		return
	}
	now := time.Now()
	rtt := time.Duration(l.life.rtt.Load())
	idle := clock.Of(now)-max(l.pauseOut.last.Load(), l.pauseIn.last.Load()) > int64(dataIdle)
	probes := s.Advance(now, rtt, idle)
	d.settle(now)
	d.mu.Unlock()
	for _, pr := range probes {
		err := l.sendNoteBy(p, echo{number: pr.ID}.append(nil), pr.Size)
		if err != nil && !errors.Is(err, net.ErrClosed) && pr.Size > 0 {
			d.mu.Lock()
			if d.search == s {
				s.Refused(now, pr.ID)
				d.settle(now)
			}
			d.mu.Unlock()
		}
	}
}

// settle has the link follow the search. The caller holds mu.
func (d *discovery) settle(now time.Time) {
	s, p := d.search, d.path
	if n := int32(s.Size() - esp.MaxOverhead); p.inner.Swap(n) != n {
		d.link.wake()
	}
	if st := s.State(); st != d.state {
		d.state = st
		if f := d.link.c.PathMTU; f != nil && st == pathmtu.Complete {
			mtu := s.PathMTU()
			d.link.alarms.launch(func() { f(mtu) })
		}
	}
	if t := s.NextTimeout(); !t.IsZero() {
		d.due.move(max(t.Sub(now), time.Millisecond))
	}
}

// need says that somebody wants to know how large packets may be: one was cut to the
// base size. Where only keystrokes pass nothing is sent that nobody needs.
func (d *discovery) need(p *path) {
	if p.searched && !p.needed.Swap(true) {
		d.run()
	}
}

// answered takes the answer to a probe.
func (d *discovery) answered(number uint32) {
	d.mu.Lock()
	if d.search == nil {
		d.mu.Unlock()
		return
	}
	d.search.Acked(time.Now(), number)
	d.mu.Unlock()
	d.run()
}

// received notes a probe of the other end's.
func (d *discovery) received(c transports.Carrier, size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by != c {
		d.by, d.most = c, 0
	}
	d.most = max(d.most, size)
}

// suspect is told that full packets do not arrive.
func (d *discovery) suspect() {
	d.mu.Lock()
	if d.search == nil {
		d.mu.Unlock()
		return
	}
	d.search.Suspect(time.Now())
	d.mu.Unlock()
	d.run()
}

// answerLater answers a question after its pause, unless another one comes.
func (d *discovery) answerLater(e echo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.question = e.number
	d.later.move(e.after)
}

func (d *discovery) answerNow() {
	d.mu.Lock()
	e := echo{answer: true, number: d.question}
	d.mu.Unlock()
	_ = d.link.sendNote(e.append(nil), 0)
}

// sendNoteBy seals a note, padded to padTo bytes if that is more, and sends it by a
// path.
func (l *Link) sendNoteBy(p *path, note []byte, padTo int) error {
	out := l.outbound.Load()
	if out == nil {
		return ErrNoSA
	}
	if n := padTo - esp.NoteOverhead; n > len(note) {
		note = append(note, make([]byte, n-len(note))...)
	}
	b, err := out.SealNote(nil, note)
	if err != nil {
		return err
	}
	if !p.spend(len(b)) {
		return transports.ErrFull
	}
	if err := p.carrier.Send([]transports.Packet{{Kind: transports.KindESP, Urgent: true, Data: b}}); err != nil {
		return err
	}
	l.packetsSent.Add(1)
	l.life.sentOther()
	// It is nothing to the control of the path's rate: no report need come for it,
	// and its loss is no sign of congestion (RFC 8899, Section 4.1).
	return nil
}
