package mobility

import (
	"slices"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// Standby: while two networks are up, the second one is registered like a probe
// of a better encapsulation: the server moves nothing until the client decides.
// The best carrier that answered there is kept. When what carries the data is
// lost, data leaves by the standby at once, and the decision that tells the
// server says what has been received, so that both ends send again what the old
// path swallowed. A registration in between makes the standby's stale; it is
// registered anew after that, over the carrier that is there.

// Where there is one network alone, and it is asked for, another encapsulation is
// kept so. Nothing is known of it when the one in use falls silent: all of the
// network may be dead. So the registration that follows goes over everything as
// ever, with a copy by the standby, and data leaves by that meanwhile.

// TriggerStandby is a registration of a network that carries no data.
const TriggerStandby Trigger = "standby"

// A standby is what the Registrar keeps of the second network.
type standby struct {
	id      CarrierID // 0: none
	at      time.Time // register it then, if nothing else runs; zero: not
	tries   int       // registrations that nothing answered
	returns int       // how often data came back to the interface that the routes prefer
	same    bool      // it is on the network in use, by another encapsulation
}

// Networks tells that interfaces may have come or gone.
func (r *Registrar) Networks(now time.Time) {
	if c := r.carriers[r.standby.id]; c != nil && !r.standby.same && !slices.Contains(r.interfaces(), c.iface) {
		r.standby.id = 0
		r.close(c)
	}
	if r.standby.id == 0 || r.standby.same && r.spare() != "" {
		r.standby.tries, r.standby.at = 0, now
	}
}

// Standby is the carrier kept ready on another interface; 0 if there is none.
// Its owner keeps its mappings alive.
func (r *Registrar) Standby() CarrierID { return r.standby.id }

// StandbyPath is what Standby leaves by; its ID is zero if there is none.
func (r *Registrar) StandbyPath() Path {
	c := r.carriers[r.standby.id]
	if c == nil {
		return Path{}
	}
	return Path{ID: c.id, Name: c.name, Local: c.desc.Source, Remote: c.desc.Destination, RTT: c.rtt, Verdict: c.verdict, Since: c.asked}
}

// interfaces are those by which the server may be reached; nil: nothing is known.
func (r *Registrar) interfaces() []string {
	if r.cfg.Interfaces == nil {
		return nil
	}
	return r.cfg.Interfaces()
}

// first is the interface that packets take by themselves.
func (r *Registrar) first() string {
	if is := r.interfaces(); len(is) > 0 {
		return is[0]
	}
	return ""
}

// spare is the interface that a standby belongs on; empty if there is none.
func (r *Registrar) spare() string {
	used := r.carriers[r.current.ID]
	if used == nil {
		return ""
	}
	// A carrier opened while no interface was known is bound to none, so
	// packets leave by the first. One on an interface that is gone is about to
	// be replaced, and what is there then is not a second network yet.
	is, by := r.interfaces(), used.iface
	if by == "" {
		by = r.first()
	}
	if !slices.Contains(is, by) {
		return ""
	}
	for _, i := range is {
		if i != by {
			return i
		}
	}
	return ""
}

// beside are the encapsulations for a standby on the network in use; nil: none is
// wanted.
func (r *Registrar) beside() (names []transports.Name) {
	if !r.cfg.Standby || r.carriers[r.current.ID] == nil || r.spare() != "" {
		return nil
	}
	for _, n := range r.usual() {
		if n != r.current.Name {
			names = append(names, n)
		}
	}
	return names
}

// standbyAt is when the standby is to be registered; zero: not now.
func (r *Registrar) standbyAt() time.Time {
	if r.standby.at.IsZero() || r.waiting != "" || r.current.ID == 0 || r.round == nil || !r.round.rec.Done || !r.round.decideAt.IsZero() {
		return time.Time{}
	}
	if may := r.mayStart(); r.standby.at.Before(may) {
		return may
	}
	return r.standby.at
}

// beginStandby starts the registration of the second network.
func (r *Registrar) beginStandby(now time.Time) {
	r.standby.at = time.Time{}
	iface, names := r.spare(), r.usual()
	same := r.beside()
	keep := r.carriers[r.standby.id]
	if keep != nil && (r.standby.same != (len(same) > 0) || !r.standby.same && keep.iface != iface) {
		keep = nil
	}
	if r.standby.same = len(same) > 0; r.standby.same {
		iface, names = r.carriers[r.current.ID].iface, same
	}
	if keep == nil {
		r.standby.id = 0
	}
	for _, c := range r.sorted() {
		if !r.inUse(c) && c != keep {
			r.close(c)
		}
	}
	if iface == "" && !r.standby.same {
		return
	}
	r.pace(now)
	if keep != nil {
		names = []transports.Name{keep.name}
	}
	rd := r.newRound(now, TriggerStandby, names)
	rd.probe, rd.standby = true, true
	for _, s := range rd.slots {
		if keep == nil {
			r.open(now, s, iface)
			continue
		}
		s.id, keep.round = keep.id, rd.number
		keep.proven, keep.known, keep.tries, keep.asked = false, false, 0, now
		s.rec.Local, s.rec.Remote = keep.desc.Source, keep.desc.Destination
		r.sendCopies(now, keep, s)
	}
}

// endStandby keeps the best carrier of a standby's registration.
func (r *Registrar) endStandby(now time.Time) {
	if c := r.bestProven(); c != nil {
		r.standby.id, r.standby.tries = c.id, 0
		return
	}
	r.standby.id = 0
	r.standby.tries++
	r.standby.at = now.Add(backoff(firstClimb, r.standby.tries, maxClimb))
}

// afterRound has the standby registered anew after another registration.
func (r *Registrar) afterRound(now time.Time) {
	used, c := r.carriers[r.current.ID], r.carriers[r.standby.id]
	if used != nil && c != nil && c.iface == used.iface && (!r.standby.same || c.name == used.name) {
		r.standby.id = 0 // it has become the network in use, or the encapsulation
	}
	if r.spare() != "" || len(r.beside()) > 0 {
		r.standby.at = now
	}
}

// returnAt is when data goes back to the interface that the routes prefer;
// zero: not.
func (r *Registrar) returnAt() time.Time {
	rd := r.round
	if rd == nil || !rd.standby || rd.switched || !rd.rec.Done || r.standby.same {
		return time.Time{}
	}
	used, c := r.carriers[r.current.ID], r.carriers[r.standby.id]
	if used == nil || c == nil || c.iface != r.first() || used.iface == c.iface {
		return time.Time{}
	}
	return r.current.Since.Add(backoff(firstClimb, r.standby.returns+1, maxClimb))
}

// takeStandby has data leave by the standby, for a reason that the trigger
// names, and tells the server. It reports false when there is none that fits.
func (r *Registrar) takeStandby(now time.Time, t Trigger) bool {
	rd := r.round
	if rd == nil || !rd.standby || rd.switched || r.standby.same {
		return false
	}
	c := r.bestProven()
	if c == nil {
		return false
	}
	is := r.interfaces()
	if !slices.Contains(is, c.iface) {
		return false
	}
	overlap := false
	switch t {
	case TriggerSocket, TriggerSilence:
	case TriggerClimb:
		overlap = true
	case TriggerAddress:
		used := r.carriers[r.current.ID]
		overlap = used != nil && slices.Contains(is, used.iface)
		// An interface that is there still leads somewhere else now; that is
		// for a registration of its own to find out.
		if overlap && is[0] != c.iface {
			return false
		}
		r.standby.returns = 0
	default:
		return false
	}
	if t == TriggerClimb {
		r.standby.returns++
	}
	s := r.slotOf(c)
	rec := &Record{
		Number: rd.number, Trigger: t, Started: now, Copies: []CopyRecord{*s.rec},
		Selected: c.name, Verdict: c.verdict, Revision: rd.rec.Revision, Done: true,
		Overlap: overlap,
	}
	rd.rec.Done = true
	rd.rec, rd.slots = rec, []*slot{s}
	s.rec, s.reopenAt = &rec.Copies[0], time.Time{}
	r.remember(rec)
	rd.switched, rd.leads, rd.probe = true, true, t == TriggerClimb
	r.standby.id, r.standby.tries, r.standby.at = 0, 0, now.Add(r.cfg.SettleTime)
	c.next = time.Time{}
	r.current, r.downID = Path{ID: c.id, Name: c.name, Local: c.desc.Source, Remote: c.desc.Destination, RTT: c.rtt, Verdict: c.verdict, Since: now}, 0
	r.do(Use{ID: c.id, Verdict: c.verdict, Validated: true, Provisional: true})
	r.decide(now, c, false)
	return true
}

// enlist has the standby on the network in use take part in the round that begins.
// After a change of address or sleep it is as good as any other: it goes.
func (r *Registrar) enlist(now time.Time, t Trigger) {
	c := r.carriers[r.standby.id]
	if c == nil || !r.standby.same || t == TriggerClimb {
		return
	}
	r.standby.id = 0
	s := r.round.slot(c.name)
	if t != TriggerSilence && t != TriggerSocket || s == nil {
		return
	}
	c.proven, c.known, c.tries, c.asked = false, false, 0, now
	s.id, r.round.warm = c.id, c.id
	s.rec.Local, s.rec.Remote = c.desc.Source, c.desc.Destination
}

// taken follows the server's consent to a standby that has taken over: its
// reply says what the old path has swallowed.
func (r *Registrar) taken(now time.Time, c *carrier) {
	rd := r.round
	if !rd.switched || rd.consented {
		return
	}
	rd.consented = true
	r.do(Use{ID: c.id, Verdict: c.verdict, RTT: now.Sub(rd.toldAt), Validated: true})
}
