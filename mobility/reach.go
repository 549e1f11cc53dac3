package mobility

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// The server's part where no encapsulation passes both ways; see ways.go.

// inUse holds for the carriers of data, of either direction.
func (b *Binding) inUse(c *bound) bool { return c.id == b.current.ID || c.id == b.upID }

// Ways are the encapsulations by which the client's data comes and the server's leaves, as
// the client calls them; both are empty if there is no path.
func (b *Binding) Ways() (up, down transports.Name) {
	if c := b.carriers[b.upID]; c != nil && b.current.ID != 0 {
		return c.name, b.current.Name
	}
	return b.current.Name, b.current.Name
}

// answerWays answers a copy that has come by c by the other ways that it names, with a
// padded reply each: by a carrier of this registration, of which only small packets
// were heard, or to where the client says that it listens. That is only believed of the
// address that the copy came from, and what goes there is counted with what goes back by
// c: three times what came from there is the most for both (RFC 9000, Section 8.1).
func (b *Binding) answerWays(now time.Time, m *regmsg.Request, a Arrival, c *bound) error {
	for _, w := range m.Ways {
		if w.Encapsulation == c.name || m.Probe || b.reg.decision != 0 {
			continue
		}
		o := b.newest(w.Encapsulation)
		if o == nil || o.guessed && o.left.Source != w.Local {
			var err error
			if o, err = b.guess(w, a); err != nil {
				return err
			}
		}
		if o == nil || o.padTo > 0 {
			continue // none such; or it is answered by itself
		}
		size := c.padTo
		switch {
		case o.validated || o.sent+size <= amplification*o.received:
		case o.seen.Source.Addr() == c.seen.Source.Addr() && (c.validated || c.sent+size <= amplification*c.received):
			c.sent, o.sent = c.sent+size, o.sent-size // c pays
		default:
			continue
		}
		o.oneWay = true
		b.reply(o, size, regmsg.CodeAccepted)
	}
	return nil
}

// newest is the carrier of an encapsulation that was heard last, in this registration.
func (b *Binding) newest(name transports.Name) (c *bound) {
	for _, o := range b.sorted() {
		if o.name == name && o.generation == b.reg.generation {
			c = o
		}
	}
	return c
}

// guess makes a carrier to where the client may listen: at the port that it names, of
// the address that its copy came from. NATs that keep ports, and those that are not
// there, let that through. It gives nil where there is nothing to guess.
func (b *Binding) guess(w regmsg.Way, a Arrival) (*bound, error) {
	from := a.Seen.Source.Addr().Unmap()
	if b.cfg.Reach == nil || w.Encapsulation.Base() != transports.UDP || w.Local.Port() == 0 || !from.IsValid() || from.Is4() != w.Local.Addr().Unmap().Is4() {
		return nil, nil
	}
	n := &bound{name: w.Encapsulation, generation: b.reg.generation, guessed: true}
	if _, err := io.ReadFull(b.cfg.Random, n.cookie[:]); err != nil {
		return nil, fmt.Errorf("path cookie: %w", err)
	}
	to := netip.AddrPortFrom(from, w.Local.Port())
	id, d, ok := b.cfg.Reach(w.Encapsulation, a.Seen.Destination.Addr(), to)
	if !ok || b.carriers[id] != nil {
		return nil, nil
	}
	n.id, n.seen = id, clip(d.Reverse())
	n.left = transports.Description{Encapsulation: w.Encapsulation, Source: w.Local, Destination: w.Remote}
	n.verdict = Judge(n.left, n.seen)
	b.makeRoom()
	b.carriers[id] = n
	return n, nil
}

// confirmWays takes a decision for two ways: it comes by the one and echoes the cookie
// that went by the other, which proves that the client hears there.
func (b *Binding) confirmWays(now time.Time, m *regmsg.Request, a Arrival) error {
	up := b.carriers[a.Carrier]
	if up == nil || up.generation != b.reg.generation {
		return fmt.Errorf("decision %d: %w", m.Number, ErrCarrier)
	}
	var c *bound
	for _, o := range b.sorted() {
		if o != up && o.name == m.Down && o.generation == b.reg.generation && o.cookie.Equal(m.Cookie) {
			c = o
		}
	}
	if c == nil {
		return fmt.Errorf("decision %d: %w", m.Number, ErrCookie)
	}
	if m.Decision < b.reg.decision {
		return fmt.Errorf("decision %d.%d: %w", m.Number, m.Decision, ErrStale)
	}
	up.received += a.Bytes
	up.resendAt, c.resendAt = time.Time{}, time.Time{}
	b.reg.decision = m.Decision
	if !c.validated {
		c.validated = true
		b.do(Validate{ID: c.id})
	}
	c.proven = true
	moves := b.current.ID != c.id || b.upID != up.id || b.reg.selected != c.id
	if moves {
		b.choose(c)
		b.useBoth(now, c, up) // before the reply, which says so
	}
	b.reply(c, 0, regmsg.CodeAccepted)
	return nil
}

// reboundUp follows the way up, where a NAT has changed the mapping of that: nothing is
// sent there. Of the way down only silence tells.
func (b *Binding) reboundUp(now time.Time, a Arrival) error {
	up := b.carriers[b.upID]
	if b.carriers[a.Carrier] != nil || up == nil || up.name.Base() != a.Seen.Encapsulation || up.seen.Destination != a.Seen.Destination {
		return fmt.Errorf("carrier %d: %w", a.Carrier, ErrCarrier)
	}
	n := &bound{id: a.Carrier, name: up.name, generation: up.generation, left: up.left, seen: clip(a.Seen), padTo: up.padTo, cookie: up.cookie}
	n.verdict = Judge(n.left, n.seen)
	b.makeRoom()
	b.carriers[n.id] = n
	up.closeAt = now.Add(grace)
	b.upID = n.id
	b.do(Use{ID: b.current.ID, From: n.id, Verdict: b.current.Verdict, Validated: true})
	return nil
}
