package mobility

import (
	"slices"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// Force keeps every registration from now on to one encapsulation, which must be one
// of those supported, and starts one; an empty name lets go again. ESP is then not
// kept for where no translation was found, as somebody asked for it.
//
// Data stays where it is until an answer has come by the one that is forced, for
// the SettleTime or three round trips at most. After that what it left by is closed,
// and it waits: who forces an encapsulation wants to know whether it works.
func (r *Registrar) Force(now time.Time, name transports.Name) {
	if name == r.forced || name != "" && !slices.Contains(r.cfg.Encapsulations, name) {
		return
	}
	r.forced, r.dropAt = name, time.Time{}
	if c := r.carriers[r.standby.id]; c != nil && !r.allowed(c.name) {
		r.standby.id = 0
		r.close(c)
	}
	if r.unforced() {
		r.dropAt = now.Add(max(r.cfg.SettleTime, 3*r.current.RTT))
	}
	if rd := r.round; rd != nil {
		// What ran is over: its other encapsulations must not be chosen any more.
		rd.rec.Done = true
		rd.overdueAt, rd.decideAt = time.Time{}, time.Time{}
	}
	r.Start(now, TriggerAsked)
}

// Forced is the encapsulation that Force named last; empty for none.
func (r *Registrar) Forced() transports.Name { return r.forced }

// allowed holds for encapsulations that Force leaves.
func (r *Registrar) allowed(n transports.Name) bool { return r.forced == "" || n == r.forced }

// unforced holds while data goes by what Force does not leave, in either direction.
func (r *Registrar) unforced() bool {
	down := r.carriers[r.downID]
	return r.current.ID != 0 && (!r.allowed(r.current.Name) || down != nil && !r.allowed(down.name))
}

// dropUnforced gives up a carrier of another encapsulation that still has the data.
func (r *Registrar) dropUnforced(now time.Time) {
	r.dropAt = time.Time{}
	if !r.unforced() {
		return
	}
	for _, id := range []CarrierID{r.current.ID, r.downID} {
		if c := r.carriers[id]; c != nil {
			r.close(c)
			r.unprovide(now, id)
		}
	}
	r.current, r.downID = Path{}, 0
	// What the server sends by it from now on is lost, and the next reply shall
	// tell; a round that nothing answers yet does not know that.
	r.begin(now, TriggerSocket)
}
