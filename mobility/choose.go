package mobility

import (
	"slices"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// preference is a name's place in the client's order.
func (r *Registrar) preference(n transports.Name) int {
	return slices.Index(r.cfg.Encapsulations, n)
}

// bestProven is the most preferred carrier of the round that has answered.
func (r *Registrar) bestProven() (best *carrier) {
	for _, c := range r.sorted() {
		if r.slotOf(c) != nil && c.proven && (best == nil || r.preference(c.name) < r.preference(best.name)) {
			best = c
		}
	}
	return best
}

// choose says which carrier is to be used after something was learnt.
func (r *Registrar) choose(now time.Time) {
	rd := r.round
	if rd.standby && !rd.switched {
		return // it is only known
	}
	if r.agreed(now) {
		return
	}
	var target *carrier
	if !rd.leads {
		for _, c := range r.sorted() {
			if r.slotOf(c) != nil && c.proven && c.name == rd.up {
				target = c
			}
		}
	}
	used := r.carriers[r.current.ID]
	inUse := r.slotOf(used) != nil && rd.rec.Selected != ""
	if target == nil && (rd.leads || !inUse) {
		// The first answer starts the data, whatever was selected: that one
		// has not been proven yet.
		target = r.bestProven()
	}
	if target != nil && (target != used || !inUse) {
		r.use(now, target)
		used, inUse = target, true
	}
	if !inUse || !used.proven {
		return
	}
	switch {
	case rd.up == used.name && rd.upID == used.id && rd.obeyed == rd.decision:
		// Both ends agree.
		r.taken(now, used)
		rd.overdueAt = time.Time{}
		if !rd.decideAt.IsZero() {
			rd.decideAt = time.Time{}
			if !rd.final {
				rd.settleAt = now.Add(r.cfg.SettleTime) // what is in flight on the old path shall arrive
			}
		}
	case rd.rec.Done && rd.up != "" && rd.decideAt.IsZero():
		// A copy came so late that the server changed its mind after the round.
		r.decide(now, used, false)
	case rd.leads && rd.decided != used.id && !r.awaits(rd.up, used):
		r.decide(now, used, false)
	case rd.decided == 0 && rd.overdueAt.IsZero():
		rd.overdueAt = now.Add(max(overdueTime, 2*used.rtt))
	}
}

// awaits holds when a client that decides had better give the encapsulation
// that the server selected time to answer, since it prefers it too.
func (r *Registrar) awaits(up transports.Name, used *carrier) bool {
	if !r.cfg.ClientDecides || r.round.probe || r.round.decided != 0 || r.preference(up) > r.preference(used.name) {
		return false
	}
	s := r.round.slot(up)
	return s != nil && r.carriers[s.id] != nil && !r.carriers[s.id].proven
}

// use moves the data to c.
func (r *Registrar) use(now time.Time, c *carrier) {
	rec := r.round.rec
	r.current = Path{ID: c.id, Name: c.name, Local: c.desc.Source, Remote: c.desc.Destination, RTT: c.rtt, Verdict: c.verdict, Since: now}
	if rec.Selected == "" {
		rec.Duration = now.Sub(rec.Started)
	}
	rec.Selected, rec.Down, rec.Verdict = c.name, "", c.verdict
	r.downID, r.rtt = 0, c.rtt
	r.do(Use{ID: c.id, Verdict: c.verdict, RTT: c.rtt, Validated: true})
}

// decide tells the server that the client has chosen c; again says that
// nothing was decided since it was told last.
func (r *Registrar) decide(now time.Time, c *carrier, again bool) {
	rd := r.round
	rd.leads = rd.leads || !rd.final
	rd.overdueAt = time.Time{}
	if rd.decided != c.id || rd.decideAt.IsZero() && !again {
		rd.decided, rd.tellings = c.id, 0
		rd.decision++
	}
	rd.tellings++
	rd.decideAt = now.Add(backoff(firstResend, rd.tellings, maxResend))
	m := r.confirmation(c, 1, rd.decision)
	if d := r.carriers[r.downID]; d != nil {
		m.Down, m.Cookie = d.name, d.cookie
	}
	if !rd.probe && r.cfg.ReceiveState != nil && !(rd.switched && rd.rec.Overlap) {
		// What the server sent meanwhile by the way that it had selected is lost;
		// that of a network that is still there arrives.
		m.Received = r.cfg.ReceiveState()
	}
	if rd.tellings == 1 {
		rd.toldAt = now // an answer to an earlier telling says less of what is under way
	}
	r.do(Send{ID: c.id, Message: m})
}
