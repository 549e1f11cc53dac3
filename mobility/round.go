package mobility

import (
	"cmp"
	"slices"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// RFC 5944, Section 3.6 keeps a mobile node to one registration a second on
// average. All copies of one count as one, and real moves may come in a burst.
const registrationEvery = time.Second

// Timing of our own.
const (
	defaultSettleTime = 2 * time.Second

	// Copies by encapsulations that lose packets are sent again after this,
	// doubling to maxResend, until an answer has come.
	firstResend = 250 * time.Millisecond
	maxResend   = 2 * time.Second

	// A carrier that failed is opened again after this, doubling to maxReopen.
	// Soon at first: just after a move the route may not be there yet.
	firstReopen = 250 * time.Millisecond
	maxReopen   = 30 * time.Second

	// While nothing has answered, a carrier as old as this is given up for a
	// fresh one: a new socket means a new mapping in the NATs on the way.
	patience = 10 * time.Second

	// overdueTime is how long the reply by the encapsulation that the server
	// selected may come behind that by another; two round trips if longer.
	// After that its way back is taken to be blocked and the client decides.
	overdueTime = 300 * time.Millisecond

	// A decision is repeated like a copy until the server agrees, so often.
	maxTellings = 8

	firstClimb = 15 * time.Second
	maxClimb   = 10 * time.Minute
	climbTime  = 6 * time.Second // a probe without an answer ends
)

// A round is one registration.
type round struct {
	number         uint32
	identification uint64
	iface          string // that its carriers leave by
	prefer         []transports.Name
	simultaneous   bool      // the path before may still work: the server shall use both
	standby        bool      // of a second network, see standby.go
	switched       bool      // which has taken over
	consented      bool      // and the server knows
	toldAt         time.Time // the last decision
	probe          bool      // a climb: the server moves nothing until the client decides
	slots          []*slot
	rec            *Record

	answered time.Time // the first reply to a padded copy
	settleAt time.Time // end, once answered

	// broken says that what carried the data is known to work no more. Then
	// data leaves provisionally by the likeliest carrier, right behind its copy.
	broken      bool
	provisional CarrierID // 0: none
	provided    bool      // there was one
	warm        CarrierID // was ready before, as a standby; 0: none
	shiftTo     CarrierID // takes over at shiftAt if nothing has answered by then
	shiftAt     time.Time // zero: none does
	shifted     bool      // a datagram encapsulation would have answered by now

	up, down transports.Name // as selected by the reply with the highest revision
	upID     CarrierID       // the very carrier, once its own reply said so

	// leads says that the client chooses, by its own preference, and tells the
	// server: in probes, where configured, and after it had to decide once.
	leads     bool
	overdueAt time.Time
	decided   CarrierID // what the server was told; 0: nothing
	decideAt  time.Time // tell again; zero: not
	decision  uint16    // counts changes of mind
	obeyed    uint16    // the last that the server has answered
	tellings  int       // of the last decision
	final     bool      // told at the end, since a confirmation may have been lost
}

// A slot is one encapsulation in a round.
type slot struct {
	name     transports.Name
	id       CarrierID // 0: none at the moment
	reopenAt time.Time
	failures int
	rec      *CopyRecord
}

// begin starts a round and ends the one before.
func (r *Registrar) begin(now time.Time, t Trigger) {
	r.pace(now)
	r.waiting, r.climbAt = "", time.Time{}
	names := r.usual()
	probe := t == TriggerClimb && r.current.ID != 0
	switch t {
	case TriggerClimb:
		if probe {
			names = r.better()
		}
		r.climbTries++
	case TriggerSilence, TriggerSocket:
		r.espFails = r.espFails || r.current.Name == transports.ESP
		// A fall soon after a climb must not start the climbing anew, or the
		// link would swing.
		if !r.current.Since.IsZero() && now.Sub(r.current.Since) >= maxClimb {
			r.climbTries = 0
		}
	case TriggerAddress:
		r.climbTries, r.espFails = 0, false
	default:
		r.climbTries = 0
	}
	var prefer []transports.Name
	if r.cfg.Prefer != nil && !probe {
		prefer = r.cfg.Prefer()
		slices.SortStableFunc(names, func(a, b transports.Name) int { return cmp.Compare(remembered(prefer, a), remembered(prefer, b)) })
	}
	rd := r.newRound(now, t, names)
	rd.prefer, rd.probe, rd.leads = prefer, probe, probe || r.cfg.ClientDecides
	switch t {
	case TriggerSilence, TriggerSocket, TriggerResume:
		rd.broken = true
	case TriggerAddress:
		rd.broken = r.cfg.Usable == nil || !r.cfg.Usable()
	}
	rd.simultaneous = t == TriggerAddress && !rd.broken && r.current.ID != 0
	rd.rec.Overlap = rd.simultaneous
	if t == TriggerConnect {
		for _, c := range r.sorted() {
			if s := rd.slot(c.name); c.round == 0 && s != nil && (s.id == 0 || c.id == r.current.ID) {
				s.id = c.id
			}
		}
	}
	r.enlist(now, t)
	for _, c := range r.sorted() {
		if s := rd.slot(c.name); s != nil && s.id == c.id {
			c.round = rd.number
		} else if !r.inUse(c) && c.id != r.standby.id {
			r.close(c)
		}
	}
	for _, s := range rd.slots {
		if c := r.carriers[s.id]; c != nil {
			s.rec.Local, s.rec.Remote = c.desc.Source, c.desc.Destination
			r.sendCopies(now, c, s)
			if c.id == rd.warm {
				r.provide(c)
			}
		} else {
			r.open(now, s, rd.iface)
		}
	}
}

// newRound makes the next round, over these encapsulations, the last one.
func (r *Registrar) newRound(now time.Time, t Trigger, names []transports.Name) *round {
	if r.round != nil {
		r.round.rec.Done = true
	}
	r.number++
	r.identification++
	rd := &round{number: r.number, identification: r.identification, iface: r.first(),
		rec: &Record{Number: r.number, Trigger: t, Started: now, Copies: make([]CopyRecord, len(names))}}
	r.round = rd
	r.remember(rd.rec)
	for i, name := range names {
		rd.rec.Copies[i].Encapsulation = name
		rd.slots = append(rd.slots, &slot{name: name, rec: &rd.rec.Copies[i]})
	}
	return rd
}

func (r *Registrar) remember(rec *Record) {
	r.history = append(r.history, rec)
	if n := len(r.history) - HistorySize; n > 0 {
		r.history = slices.Delete(r.history, 0, n)
	}
}

func (rd *round) slot(name transports.Name) *slot {
	for _, s := range rd.slots {
		if s.name == name {
			return s
		}
	}
	return nil
}

// slotOf is c's slot in the last round; nil if it is in none, or another
// encapsulation is forced.
func (r *Registrar) slotOf(c *carrier) *slot {
	if c == nil || r.round == nil || c.round != r.round.number || !r.allowed(c.name) {
		return nil
	}
	if s := r.round.slot(c.name); s != nil && s.id == c.id {
		return s
	}
	return nil
}

// sorted gives the carriers in the order of their IDs, so that what happens
// does not depend on a map's order.
func (r *Registrar) sorted() []*carrier {
	cs := make([]*carrier, 0, len(r.carriers))
	for _, c := range r.carriers {
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b *carrier) int { return cmp.Compare(a.id, b.id) })
	return cs
}

// usual is what every registration but a climb goes over. ESP is not in it: a
// translation on the way would break it, so it is only climbed to.
func (r *Registrar) usual() []transports.Name {
	if r.forced != "" {
		return []transports.Name{r.forced}
	}
	names := make([]transports.Name, 0, len(r.cfg.Encapsulations))
	for _, n := range r.cfg.Encapsulations {
		if n != transports.ESP && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// better is what is preferred to the encapsulation in use and worth a probe.
func (r *Registrar) better() (names []transports.Name) {
	if r.downID != 0 && r.current.ID != 0 {
		return r.usual() // whatever passes both ways
	}
	for _, n := range r.cfg.Encapsulations {
		// Another port of the server is no better.
		if n.Base() == r.current.Name.Base() || r.current.ID == 0 || r.forced != "" {
			break
		}
		// "esp is tried only where the verdict was none": design, Section 6.
		if n != transports.ESP || !r.espFails && r.current.Verdict == None && r.current.RTT > 0 {
			names = append(names, n)
		}
	}
	return names
}

func (r *Registrar) open(now time.Time, s *slot, iface string) {
	r.round.iface = iface
	c := &carrier{id: r.cfg.NextID(), name: s.name, iface: iface, round: r.round.number, asked: now}
	r.carriers[c.id] = c
	s.id, s.reopenAt = c.id, time.Time{}
	r.do(Open{ID: c.id, Name: s.name, Interface: iface})
}

// reliable holds for encapsulations that send lost packets again themselves.
func reliable(n transports.Name) bool { return !n.Datagrams() }

// sendCopies sends the short and the padded copy.
func (r *Registrar) sendCopies(now time.Time, c *carrier, s *slot) {
	size := r.cfg.PaddedSize(c.name)
	if size <= 0 {
		size = DefaultPaddedSize
	}
	size = min(size, regmsg.MaxPaddedPacket)
	m := r.request(c)
	m.Ways = r.ways(now, c)
	r.do(Send{ID: c.id, Message: &m})
	p := m
	p.PaddedSize = uint16(size)
	r.do(Send{ID: c.id, Message: &p, PadTo: size})
	c.tries++
	c.before, c.sentAt, c.next = c.sentAt, now, time.Time{}
	switch {
	case !reliable(c.name):
		c.next = now.Add(backoff(firstResend, c.tries, maxResend))
	case c.tries == 1 && len(r.round.slots) > 1:
		c.next = now.Add(max(askByStream, 3*r.rtt)) // to ask for another way back
	}
	s.rec.SentAt = now
	s.rec.Sent += 2
}

func (r *Registrar) request(c *carrier) regmsg.Request {
	m := regmsg.Request{
		Lifetime:    regmsg.LifetimeInfinity, // registrations are not renewed: data and keepalives show that the path lives
		HomeAddress: r.cfg.HomeAddress, HomeAgent: r.cfg.HomeAgent,
		Identification: r.round.identification, Number: r.round.number,
		Sent:      c.desc,
		Supported: r.cfg.Encapsulations[:min(len(r.cfg.Encapsulations), regmsg.MaxNames)],
		Probe:     r.round.probe, Simultaneous: r.round.simultaneous,
		Trigger: regmsg.TriggerOf(string(r.round.rec.Trigger)),
	}
	// Where no path was lost, what is under way arrives and need not come twice.
	if r.cfg.ReceiveState != nil && r.round.rec.loses() {
		m.Received = r.cfg.ReceiveState()
	}
	return m
}

// confirmation echoes the cookie of a reply of the given padded size.
func (r *Registrar) confirmation(c *carrier, size uint16, decision uint16) *regmsg.Request {
	m := r.request(c)
	m.Supported, m.Received = nil, regmsg.ReceiveState{}
	m.Cookie, m.PaddedSize, m.Decision = c.cookie, size, decision
	return &m
}

// clip leaves out what a registration cannot carry, so that a strange setting
// does not keep it from being sent.
func clip(d transports.Description) transports.Description {
	for _, s := range []*string{&d.Authority, &d.Path, &d.Proxy} {
		if len(*s) > regmsg.MaxString {
			*s = ""
		}
	}
	return d
}
