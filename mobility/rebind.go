package mobility

import (
	"fmt"
	"io"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

// A NAT may change a mapping while nothing changes at the client: its packets
// come from a new address then, by a carrier that no registration spoke of. The
// data follows at once, within three times what came from there (RFC 9000,
// Sections 8.1 and 9.3), and a reply to the last registration takes the way to
// the new address, with a cookie. The client echoes it as it does in a
// registration, so no round of it is needed. Who sends a copy of a client's
// packet from elsewhere, ahead of the packet itself, cannot echo: then the data
// goes back to where it was.

// revertAfter is how long the echo may take.
const revertAfter = time.Second

// Rebound tells that the client's newest packet, of a.Bytes, came by a carrier
// that is not known, while data leaves by one of the same encapsulation. An
// error matches ErrCarrier when there is nothing to follow; nothing has changed
// then. One of the random source is returned too.
func (b *Binding) Rebound(now time.Time, a Arrival) error {
	if b.upID != 0 {
		return b.reboundUp(now, a)
	}
	used := b.carriers[b.current.ID]
	if used == nil || b.carriers[a.Carrier] != nil || used.generation == 0 || used.name.Base() != a.Seen.Encapsulation {
		return fmt.Errorf("carrier %d: %w", a.Carrier, ErrCarrier)
	}
	c := &bound{
		id: a.Carrier, name: used.name, generation: used.generation, seen: clip(a.Seen), padTo: used.padTo,
		received: a.Bytes, proven: used.proven, before: used.id, revertAt: now.Add(revertAfter),
	}
	if used.before != 0 && !used.validated {
		c.before = used.before // the last that was proven
	}
	if _, err := io.ReadFull(b.cfg.Random, c.cookie[:]); err != nil {
		return fmt.Errorf("path cookie: %w", err)
	}
	c.left = used.left
	c.verdict = Judge(c.left, c.seen)
	b.makeRoom()
	b.carriers[c.id] = c
	if b.reg.generation == c.generation {
		b.choose(c)
	}
	b.reply(c, 0, regmsg.CodeAccepted)
	b.use(now, c)
	return nil
}

// revert goes back from a carrier that nobody has proven.
func (b *Binding) revert(now time.Time, c *bound) {
	c.revertAt = time.Time{}
	before := b.carriers[c.before]
	if b.current.ID == c.id && before != nil {
		before.closeAt = time.Time{}
		if b.reg.generation == before.generation {
			b.choose(before)
		}
		b.use(now, before)
	}
	if b.current.ID != c.id {
		b.close(c)
	}
}

// rebound takes the reply that the server sends when it hears the client from
// another address, by the carrier in use where that belongs to an older
// registration: a standby or a better encapsulation was registered meanwhile. It
// reports false for any other.
func (r *Registrar) rebound(m *regmsg.Reply, c *carrier) bool {
	if c == nil || c.id != r.current.ID || !c.opened || m.Code != regmsg.CodeAccepted || m.Cookie.IsZero() || m.PaddedSize > 0 || !r.round.probe && !r.round.standby {
		return false
	}
	c.cookie, c.verdict, r.current.Verdict = m.Cookie, m.Verdict, m.Verdict
	if !m.Validated {
		r.do(Send{ID: c.id, Message: r.confirmation(c, 0, 0)})
	}
	return true
}
