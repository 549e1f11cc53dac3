package mobility

import "time"

// end closes what the round leaves over.
func (r *Registrar) end(now time.Time) {
	rd := r.round
	rd.rec.Done = true
	rd.overdueAt, rd.decideAt = time.Time{}, time.Time{}
	if rd.standby && !rd.switched {
		r.endStandby(now)
	} else {
		r.afterRound(now)
	}
	for _, s := range rd.slots {
		s.reopenAt = time.Time{}
	}
	for _, c := range r.sorted() {
		c.next = time.Time{}
		if !r.inUse(c) && c.id != r.standby.id {
			r.close(c)
		}
	}
	if len(r.better()) > 0 {
		r.climbAt = now.Add(backoff(firstClimb, r.climbTries+1, maxClimb))
	}
}

// NextTimeout is when Advance wants to be called; zero: never.
func (r *Registrar) NextTimeout() (t time.Time) {
	earliest := func(u time.Time) {
		if !u.IsZero() && (t.IsZero() || u.Before(t)) {
			t = u
		}
	}
	if r.waiting != "" {
		earliest(r.mayStart())
	}
	earliest(r.climbAt)
	earliest(r.dropAt)
	earliest(r.standbyAt())
	earliest(r.returnAt())
	rd := r.round
	if rd == nil {
		return t
	}
	earliest(rd.overdueAt)
	earliest(rd.decideAt)
	if rd.rec.Done {
		return t
	}
	earliest(rd.shiftAt)
	earliest(r.endAt())
	for _, s := range rd.slots {
		earliest(s.reopenAt)
		if c := r.carriers[s.id]; c != nil {
			earliest(c.next)
			earliest(r.impatientAt(c))
		}
	}
	return t
}

// endAt is when the running round ends; zero: not before an answer.
func (r *Registrar) endAt() time.Time {
	rd := r.round
	switch {
	case !rd.decideAt.IsZero() || !rd.overdueAt.IsZero():
		return time.Time{}
	case !rd.answered.IsZero():
		return rd.settleAt
	case rd.probe:
		return rd.rec.Started.Add(climbTime)
	}
	return time.Time{}
}

// impatientAt is when a carrier of the running round is replaced by a fresh
// one; zero: never.
func (r *Registrar) impatientAt(c *carrier) time.Time {
	if r.round.probe || !r.round.answered.IsZero() {
		return time.Time{}
	}
	return c.asked.Add(patience)
}

// Advance does what is due at now.
func (r *Registrar) Advance(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if r.waiting != "" && due(r.mayStart()) {
		t := r.waiting
		r.waiting = ""
		r.Start(now, t)
	}
	if due(r.dropAt) {
		r.dropUnforced(now)
	}
	if due(r.climbAt) {
		r.climbAt = time.Time{}
		r.Start(now, TriggerClimb)
	}
	if due(r.returnAt()) {
		r.takeStandby(now, TriggerClimb)
	}
	if due(r.standbyAt()) {
		r.beginStandby(now)
	}
	rd := r.round
	if rd == nil {
		return
	}
	used := r.carriers[r.current.ID]
	switch {
	case due(rd.overdueAt):
		rd.overdueAt = time.Time{}
		if r.slotOf(used) != nil && used.proven {
			r.decide(now, used, false)
		}
	case due(rd.decideAt):
		rd.decideAt = time.Time{}
		if rd.tellings < maxTellings && r.slotOf(used) != nil && rd.decided == used.id {
			r.decide(now, used, true)
		} else {
			r.end(now)
			r.Start(now, TriggerSilence)
			return
		}
	}
	if rd.rec.Done {
		return
	}
	if due(rd.shiftAt) {
		rd.shiftAt, rd.shifted = time.Time{}, true
		if c := r.carriers[rd.shiftTo]; rd.answered.IsZero() && r.slotOf(c) != nil {
			r.provide(c)
		}
	}
	for _, s := range rd.slots {
		c := r.carriers[s.id]
		switch {
		case c == nil && due(s.reopenAt):
			r.open(now, s, rd.iface)
		case c == nil:
		case due(r.impatientAt(c)):
			if c.id == r.current.ID {
				// Data keeps the adopted carrier until another is proven.
				c.round = 0
			} else {
				r.close(c)
			}
			r.open(now, s, rd.iface)
		case due(c.next) && reliable(c.name) && len(r.ways(now, c)) == 0:
			c.next = time.Time{}
		case due(c.next):
			r.sendCopies(now, c, s)
		}
	}
	switch {
	case !due(r.endAt()):
	case r.slotOf(used) != nil && used.proven && !used.known && !rd.final:
		rd.final = true
		r.decide(now, used, false)
	default:
		r.end(now)
	}
}

// backoff is first doubled n-1 times, but no more than limit.
func backoff(first time.Duration, n int, limit time.Duration) time.Duration {
	for ; n > 1 && first < limit; n-- {
		first *= 2
	}
	return min(first, limit)
}
