package mobility

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// RegistrarConfig makes a Registrar.
type RegistrarConfig struct {
	HomeAddress netip.Addr // the client's inner address
	HomeAgent   netip.Addr // the server's inner address

	// Encapsulations are those supported, in order of preference.
	Encapsulations []transports.Name

	// Identification is where the identifications start; it must exceed any
	// that was used on the same SA before, so take the time.
	Identification uint64

	// PaddedSize gives the size in bytes of the whole ESP packet of a padded
	// copy: what data will have. Nil means DefaultPaddedSize for all.
	PaddedSize func(transports.Name) int

	// NextID names the carriers that are opened. Nil counts from 1, which is
	// for owners that never call Adopt.
	NextID func() CarrierID

	// ReceiveState gives the state of the client's inbound SA; nil says nothing.
	ReceiveState func() regmsg.ReceiveState

	// SettleTime is how long other encapsulations have to answer after the
	// first; 2 s by default. Three round trips are granted if that is longer.
	SettleTime time.Duration

	// Usable says whether the carrier in use may still work although the point
	// of attachment changed; nil means that it does not. While it may, data
	// stays on it until an answer has come by another.
	Usable func() bool

	// Prefer gives encapsulations that worked before where the client is now,
	// the best first; nil is nothing known. It orders the attempts of a
	// registration, and data with the request leaves by those first. None is left out.
	Prefer func() []transports.Name

	// Interfaces names the interfaces by which the server may be reached now,
	// the one that packets take by themselves first. With a second one a standby
	// is registered there. Nil: there is no choice, and Open names none.
	Interfaces func() []string

	// Standby keeps another encapsulation registered beside the one in use while
	// there is no second network, so that data moves to it at once when that falls
	// silent. It costs a registration after each other, and keepalives.
	Standby bool

	// ClientDecides lets the client choose by its own order of preference
	// instead of following the server's replies.
	ClientDecides bool

	// Forced is an encapsulation to begin with as if Force had named it.
	Forced transports.Name

	Logger *slog.Logger // nil discards
}

// DefaultPaddedSize is the size in bytes of padded copies by default.
const DefaultPaddedSize = 1400

// HistorySize is how many registrations History tells of.
const HistorySize = 64

// RegistrationBurst is how many registrations may follow each other at once.
const RegistrationBurst = 8

// A Registrar is the client's side: it registers the client's point of
// attachment over every encapsulation at once, and says by which carrier data
// leaves. It is not safe for concurrent use.
type Registrar struct {
	cfg     RegistrarConfig
	log     *slog.Logger
	actions []Action

	carriers map[CarrierID]*carrier
	lastID   CarrierID // when the config has no NextID
	current  Path
	downID   CarrierID     // by which the server's data comes, if that is not current's; 0: it is
	rtt      time.Duration // of the last path that had one

	number         uint32
	identification uint64
	round          *round // the last one, even when it has ended
	history        []*Record

	// Starts are paced by a virtual clock that each one sets forward by
	// registrationEvery; it may run ahead of the time by the burst.
	paced   time.Time
	waiting Trigger // put off; empty if none

	// espFails says that ESP was silent here although its probe had passed: some
	// networks let the first packets through. A change of address forgets it.
	espFails bool

	climbAt    time.Time
	climbTries int

	forced transports.Name // empty: none
	dropAt time.Time       // of a carrier in use that is not of that encapsulation

	standby standby
}

// A carrier is one that this Registrar has opened or adopted.
type carrier struct {
	id     CarrierID
	name   transports.Name
	iface  string // by which it leaves; empty if nothing is known of interfaces
	round  uint32 // the registration that it belongs to; 0: adopted, and in none yet
	opened bool   // its addresses are known
	ready  bool   // it takes data
	desc   transports.Description

	asked  time.Time // when it was opened; for the first patience
	sentAt time.Time // the last copies
	before time.Time // the last but one
	tries  int       // pairs of copies sent
	next   time.Time // send again; zero: not

	proven  bool // a reply to a padded copy came by it
	came    bool // a padded reply came by it that was asked for by another way
	known   bool // the server knows that this end receives at its address
	rtt     time.Duration
	verdict Verdict
	cookie  regmsg.Cookie
}

// NewRegistrar makes a Registrar without any carrier.
func NewRegistrar(cfg RegistrarConfig) *Registrar {
	if cfg.PaddedSize == nil {
		cfg.PaddedSize = func(transports.Name) int { return DefaultPaddedSize }
	}
	if cfg.SettleTime <= 0 {
		cfg.SettleTime = defaultSettleTime
	}
	r := &Registrar{cfg: cfg, log: discard(cfg.Logger), carriers: make(map[CarrierID]*carrier), identification: cfg.Identification, forced: cfg.Forced}
	if r.cfg.NextID == nil {
		r.cfg.NextID = func() CarrierID {
			r.lastID++
			return r.lastID
		}
	}
	return r
}

// Adopt takes over a carrier that is open already, as IKE leaves them. With
// current set it is the one that data leaves by until a registration says
// otherwise, and an action Use follows. Adopted carriers are used by the next
// Start(TriggerConnect); any other Start closes those that carry no data,
// since what they know of the network may be out of date.
func (r *Registrar) Adopt(now time.Time, id CarrierID, d transports.Description, current bool) {
	c := &carrier{id: id, name: d.Encapsulation, iface: r.first(), opened: true, desc: clip(d), asked: now}
	r.carriers[id] = c
	if current {
		r.current = Path{ID: id, Name: c.name, Local: c.desc.Source, Remote: c.desc.Destination, Since: now}
		r.do(Use{ID: id, Validated: true})
	}
}

// Start begins a new registration over every encapsulation at once. More than
// one a second on average, with a burst of RegistrationBurst, is put off to
// NextTimeout, several becoming one. TriggerSilence and TriggerSocket are
// ignored while a registration runs that nothing has answered yet, and
// TriggerClimb while any runs or when there is nothing better to probe.
func (r *Registrar) Start(now time.Time, t Trigger) {
	if t != TriggerClimb && r.takeStandby(now, t) {
		return
	}
	running := r.round != nil && !r.round.rec.Done
	switch t {
	case TriggerSilence, TriggerSocket:
		if running && !r.round.probe && r.round.answered.IsZero() {
			return
		}
		if rd := r.round; t == TriggerSilence && rd != nil && !rd.decideAt.IsZero() && rd.tellings <= 2 {
			return // the server may only just have heard where to send
		}
	case TriggerClimb:
		if running || len(r.better()) == 0 {
			return
		}
	}
	if r.waiting != "" {
		if t == TriggerAddress || t == TriggerResume || r.waiting == TriggerClimb {
			r.waiting = t
		}
		return
	}
	if now.Before(r.mayStart()) {
		r.waiting = t
		return
	}
	r.begin(now, t)
}

// pace counts a registration that starts now.
func (r *Registrar) pace(now time.Time) {
	if r.paced.Before(now) {
		r.paced = now
	}
	r.paced = r.paced.Add(registrationEvery)
}

// mayStart is when the pace allows the next registration.
func (r *Registrar) mayStart() time.Time {
	return r.paced.Add(-(RegistrationBurst - 1) * registrationEvery)
}

// roundTrip is what a reply that came by c shows. It does not say which copy it
// is to: taken for the last one's where it answers the one before, it would make
// long round trips short, and what goes by them impatient.
func (r *Registrar) roundTrip(now time.Time, c *carrier) time.Duration {
	rtt := now.Sub(c.sentAt)
	if known := r.current.RTT; c.tries == 2 && known == 0 || c.tries > 1 && rtt < known*3/4 {
		return now.Sub(c.before)
	}
	return rtt
}

// Opened tells that a carrier's addresses are known; Sends for it follow.
func (r *Registrar) Opened(now time.Time, id CarrierID, d transports.Description) {
	c := r.carriers[id]
	if c == nil || c.opened {
		return
	}
	c.opened, c.desc = true, clip(d)
	if s := r.slotOf(c); s != nil {
		s.rec.Local, s.rec.Remote = c.desc.Source, c.desc.Destination
		r.sendCopies(now, c, s)
	}
}

// OpenFailed tells that a carrier could not be opened, before Opened or after.
func (r *Registrar) OpenFailed(now time.Time, id CarrierID, err error) { r.lost(now, id, err) }

// Closed tells that a carrier has ended otherwise than by an action Close. If
// data left by it, another that has answered takes over, or a registration
// with TriggerSocket is started.
func (r *Registrar) Closed(now time.Time, id CarrierID, err error) { r.lost(now, id, err) }

func (r *Registrar) lost(now time.Time, id CarrierID, err error) {
	c := r.carriers[id]
	if c == nil {
		return
	}
	if s := r.slotOf(c); s != nil {
		s.id = 0
		s.failures++
		if err != nil {
			s.rec.Error = err.Error()
		}
		if !r.round.rec.Done && !r.round.probe && r.round.answered.IsZero() {
			s.reopenAt = now.Add(backoff(firstReopen, s.failures, maxReopen))
		}
	}
	reserve := id == r.standby.id
	if reserve {
		r.standby.id, r.standby.at = 0, now.Add(firstReopen)
	}
	delete(r.carriers, id)
	r.unprovide(now, id)
	if id == r.downID {
		r.downID = 0
		r.Start(now, TriggerSocket)
	}
	if rd := r.round; rd != nil && rd.probe && !rd.rec.Done && !slices.ContainsFunc(rd.slots, func(s *slot) bool { return s.id != 0 }) {
		r.end(now) // nothing left to wait for
	}
	if r.current.ID != id {
		return
	}
	r.espFails = r.espFails || r.current.Name == transports.ESP
	r.current = Path{}
	if r.round != nil && !r.round.standby && !r.round.rec.Done && r.bestProven() != nil {
		r.round.leads = true
		r.choose(now)
		return
	}
	r.Start(now, TriggerSocket)
}

// Receive takes a reply that came by a carrier. Errors are for the debug log
// and match ErrStale, ErrCarrier, ErrAddress or *ReplyError; nothing but the
// record of the last changes then.
func (r *Registrar) Receive(now time.Time, m *regmsg.Reply, id CarrierID) error {
	if m.HomeAddress != r.cfg.HomeAddress || m.HomeAgent != r.cfg.HomeAgent {
		return fmt.Errorf("reply %d for %v: %w", m.Number, m.HomeAddress, ErrAddress)
	}
	rd := r.round
	if rd == nil || m.Number != rd.number || m.Identification != rd.identification {
		return fmt.Errorf("reply %d: %w", m.Number, ErrStale)
	}
	c := r.carriers[id]
	s := r.slotOf(c)
	if s == nil && r.rebound(m, c) {
		return nil
	}
	if s == nil || !c.opened || c.tries == 0 {
		return fmt.Errorf("reply %d: %w", m.Number, ErrCarrier)
	}
	if m.Code != regmsg.CodeAccepted {
		err := &ReplyError{Code: m.Code}
		s.rec.Error = err.Error()
		return err
	}
	s.rec.Heard = true
	if !m.OneWay {
		s.rec.Arrived, s.rec.ArrivedFull = true, s.rec.ArrivedFull || m.PaddedSize > 0
	}
	for _, h := range m.Heard {
		if o := rd.slot(h.Encapsulation); o != nil {
			o.rec.Arrived, o.rec.ArrivedFull = true, o.rec.ArrivedFull || h.Full
		}
	}
	c.cookie, c.known = m.Cookie, c.known || m.Validated
	if m.OneWay && m.PaddedSize > 0 {
		c.came, s.rec.Came, c.verdict = true, true, m.Verdict
	}
	if !m.OneWay && !m.Cookie.IsZero() && (!m.Validated || m.PaddedSize > 0 && !reliable(c.name)) {
		// Every such reply is answered: it comes again when the last
		// confirmation was lost. Where the address is proven, the server still
		// has to learn that packets of full size come through.
		r.do(Send{ID: id, Message: r.confirmation(c, m.PaddedSize, 0)})
	}
	if m.PaddedSize > 0 && !m.OneWay && !c.proven {
		c.proven, c.next = true, time.Time{}
		c.rtt, c.verdict = r.roundTrip(now, c), m.Verdict
		s.rec.ReplyAt, s.rec.RTT, s.rec.Verdict, s.rec.Error = now, c.rtt, c.verdict, ""
		if rd.answered.IsZero() {
			rd.answered = now
			rd.settleAt = now.Add(max(r.cfg.SettleTime, 3*c.rtt))
		}
	}
	rd.obeyed = max(rd.obeyed, min(m.Decision, rd.decision))
	s.rec.Revision = max(s.rec.Revision, m.Revision)
	// Late replies of lower revisions prove a path but select nothing.
	if m.Revision >= rd.rec.Revision {
		switch {
		case m.Here:
			rd.upID = id
			if c.proven {
				// A NAT may have changed its mapping since.
				c.verdict = m.Verdict
				if r.current.ID == id {
					r.current.Verdict = m.Verdict
				}
			}
		case m.Up == c.name || m.Revision > rd.rec.Revision:
			rd.upID = 0
		}
		rd.rec.Revision = m.Revision
		rd.up, rd.down = m.Up, m.Down
	}
	r.pair(now)
	r.choose(now)
	return nil
}

// Current is the path that data leaves by; its ID is zero if there is none.
func (r *Registrar) Current() Path { return r.current }

// Registering reports that a registration is wanted or under way and no
// answer to it has come yet. Probes of better encapsulations do not count.
func (r *Registrar) Registering() bool {
	return r.waiting != "" && r.waiting != TriggerClimb ||
		r.round != nil && !r.round.probe && !r.round.rec.Done && r.round.answered.IsZero()
}

// History tells of the last registrations, HistorySize at most, oldest first.
func (r *Registrar) History() []Record {
	h := make([]Record, len(r.history))
	for i, rec := range r.history {
		h[i] = *rec
		h[i].Copies = slices.Clone(rec.Copies)
	}
	return h
}

// Last tells of the last registration; its Number is zero if there was none.
func (r *Registrar) Last() Record {
	if r.round == nil {
		return Record{}
	}
	rec := *r.round.rec
	rec.Copies = slices.Clone(rec.Copies)
	return rec
}

// Actions gives what is to be done, in order, once. It may be called at any
// time and should be after every other call.
func (r *Registrar) Actions() []Action {
	a := r.actions
	r.actions = nil
	return a
}

func (r *Registrar) do(a Action) { r.actions = append(r.actions, a) }

func (r *Registrar) close(c *carrier) {
	delete(r.carriers, c.id)
	r.do(Close{ID: c.id})
}
