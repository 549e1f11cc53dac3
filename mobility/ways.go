package mobility

import (
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

// Two ways: where no encapsulation passes both ways, the client's data goes by one
// that passes up and the server's comes by one that passes down.
//
// Nobody hears the answer of a server that was heard by a way that passes up alone. So
// when nothing has answered for a while, the copies name the client's other carriers,
// and the server sends a padded reply by those too, to where the client says that it
// listens, at the address that the copy came from (Binding.answerWays). That reply has
// a cookie, and tells which copies have come. The client echoes the cookie by the way
// that passes up, in a decision: so the server knows that the client hears by the other.
// What came by the way up proves nothing of that address, and data does not go there.
//
// What passes both ways takes over whenever it answers, and is looked for like a better
// encapsulation.

// askByStream is how long a stream has to be answered until it asks for another way
// back; three round trips if longer.
const askByStream = time.Second

// inUse holds for the carriers of data, of either direction.
func (r *Registrar) inUse(c *carrier) bool { return c.id == r.current.ID || c.id == r.downID }

// DownPath is what the server's data comes by where that is another than Current; its
// ID is zero if it is not.
func (r *Registrar) DownPath() Path {
	c := r.carriers[r.downID]
	if c == nil || r.current.ID == 0 {
		return Path{}
	}
	return Path{ID: c.id, Name: c.name, Local: c.desc.Source, Remote: c.desc.Destination, Verdict: c.verdict, Since: r.current.Since}
}

// alone holds in a registration that nothing has answered, though it had time to.
func (r *Registrar) alone(now time.Time) bool {
	rd := r.round
	return rd != nil && !rd.probe && !rd.standby && !rd.rec.Done && rd.answered.IsZero() &&
		now.Sub(rd.rec.Started) >= max(firstResend, 2*r.rtt)
}

// ways are the carriers by which a copy that leaves by c asks to be answered too;
// datagrams first, as most of what passes one way alone is that.
func (r *Registrar) ways(now time.Time, c *carrier) (ws []regmsg.Way) {
	if c.tries == 0 || !r.alone(now) {
		return nil
	}
	for _, streams := range []bool{false, true} {
		for _, s := range r.round.slots {
			o := r.carriers[s.id]
			if o == nil || o == c || !o.opened || reliable(o.name) != streams || len(ws) == regmsg.MaxWays {
				continue
			}
			ws = append(ws, regmsg.Way{Encapsulation: o.name, Local: o.desc.Source, Remote: o.desc.Destination})
		}
	}
	return ws
}

// pair takes one way up and another one down, when both are known and nothing has
// answered that passes both ways.
func (r *Registrar) pair(now time.Time) {
	rd := r.round
	if rd.probe || rd.standby || rd.rec.Done || !rd.answered.IsZero() {
		return
	}
	var up, down *carrier
	for _, s := range rd.slots {
		c := r.carriers[s.id]
		if r.slotOf(c) != nil && c.came && (down == nil || r.preference(c.name) < r.preference(down.name)) {
			down = c
		}
	}
	if down == nil {
		return
	}
	for _, s := range rd.slots {
		c := r.carriers[s.id]
		if r.slotOf(c) != nil && c != down && c.ready && s.rec.ArrivedFull && (up == nil || r.preference(c.name) < r.preference(up.name)) {
			up = c
		}
	}
	if up == nil {
		return
	}
	// Asked by the one, answered by the other. It may be about the copy before.
	if up.rtt = now.Sub(up.sentAt); up.tries > 2 && up.rtt < r.rtt*3/4 {
		up.rtt = now.Sub(up.before)
	}
	rd.answered, rd.leads = now, true
	rd.settleAt = now.Add(max(r.cfg.SettleTime, 3*up.rtt))
	rec := rd.rec
	if rec.Selected == "" {
		rec.Duration = now.Sub(rec.Started)
	}
	rec.Selected, rec.Down, rec.Verdict = up.name, down.name, down.verdict
	r.current = Path{ID: up.id, Name: up.name, Local: up.desc.Source, Remote: up.desc.Destination, RTT: up.rtt, Verdict: down.verdict, Since: now}
	r.downID, r.rtt = down.id, up.rtt
	r.do(Use{ID: up.id, From: down.id, Verdict: down.verdict, RTT: up.rtt, Validated: true})
	r.decide(now, up, false)
}

// agreed takes note that the server obeys the choice of two ways. It reports false
// when that is not what runs, or something passes both ways.
func (r *Registrar) agreed(now time.Time) bool {
	rd := r.round
	used, down := r.carriers[r.current.ID], r.carriers[r.downID]
	if used == nil || down == nil || r.slotOf(used) == nil || r.bestProven() != nil {
		return false
	}
	if rd.up == used.name && rd.down == down.name && rd.upID == down.id && rd.obeyed == rd.decision && !rd.decideAt.IsZero() {
		rd.decideAt = time.Time{}
		rd.settleAt = now.Add(r.cfg.SettleTime)
	}
	return true
}
