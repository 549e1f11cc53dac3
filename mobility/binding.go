package mobility

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// BindingConfig makes a Binding.
type BindingConfig struct {
	HomeAddress netip.Addr // the client's inner address
	HomeAgent   netip.Addr // the server's inner address

	// Preference orders the encapsulations, best first; nil is the default
	// order of package transports. Those not in it come last.
	Preference []transports.Name

	// Bicast is how long data leaves by the binding before, too, after a move
	// for which the client asked for that: 2 s by default and at most; negative:
	// not at all.
	Bicast time.Duration

	// Reach gives a carrier to an address from which nothing has come by it, for a
	// client that may hear there: by the encapsulation that it names, from the
	// server's address local. False: there is none. Nil: never.
	Reach func(name transports.Name, local netip.Addr, to netip.AddrPort) (CarrierID, transports.Description, bool)

	Offers       func() []regmsg.Offer      // nil offers nothing
	ReceiveState func() regmsg.ReceiveState // of the server's inbound SA; nil says nothing
	Random       io.Reader                  // path cookies; crypto/rand.Reader by default
	Logger       *slog.Logger               // nil discards
}

// An Arrival says how a request came in.
type Arrival struct {
	Carrier CarrierID
	Seen    transports.Description // of the request's packet: its source is the client
	Bytes   int                    // size of the ESP packet
	// Validated says that the encapsulation has proven the peer's address.
	Validated bool
}

// A Binding is the server's side for one client: it answers registrations and
// says by which carrier data leaves. It is not safe for concurrent use.
type Binding struct {
	cfg     BindingConfig
	log     *slog.Logger
	actions []Action

	carriers map[CarrierID]*bound
	current  Path
	upID     CarrierID // by which the client's data comes, if that is not current's; 0: it is
	reg      registration
}

// A registration is what all copies of one number share.
type registration struct {
	generation     uint64 // counts registrations; 0: there was none
	number         uint32
	identification uint64
	began          time.Time // when its first copy came
	lifetime       uint16
	probe          bool
	simultaneous   bool
	revision       uint16
	selected       CarrierID // of the current registration; 0: none yet
	decision       uint16    // the client's last; when it has chosen the server follows
}

// A bound carrier is one by which the client was heard.
type bound struct {
	id         CarrierID
	name       transports.Name
	generation uint64                 // the registration that it belongs to; 0: adopted
	left       transports.Description // as the client described it
	seen       transports.Description // as it came
	verdict    Verdict
	padTo      int // of the padded copy; 0: none has come

	cookie    regmsg.Cookie
	validated bool // the peer receives at its address
	proven    bool // and data-sized packets reach it

	guessed bool // nothing has come by it, see answerWays
	oneWay  bool // no copy of full size has, and one was sent by it

	received, sent int // bytes, for the limit before validation
	resendAt       time.Time
	resends        int
	closeAt        time.Time // superseded; zero: not

	// Of one that came by Rebound: where data goes again if nobody proves it.
	before   CarrierID
	revertAt time.Time // zero: it is proven, or was none
}

// NewBinding makes a Binding without any carrier.
func NewBinding(cfg BindingConfig) *Binding {
	if cfg.Preference == nil {
		cfg.Preference = []transports.Name{transports.ESP, transports.UDP, transports.TCP, transports.WebSocket, transports.HTTP}
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Bicast == 0 || cfg.Bicast > grace {
		cfg.Bicast = grace
	}
	return &Binding{cfg: cfg, log: discard(cfg.Logger), carriers: make(map[CarrierID]*bound)}
}

// Adopt takes the carrier by which IKE_AUTH came as the one in use, without a
// registration; d is what the server sees, its source being the client. An
// action Use follows.
func (b *Binding) Adopt(now time.Time, id CarrierID, d transports.Description, validated bool) {
	c := &bound{id: id, name: d.Encapsulation, seen: clip(d), validated: validated, proven: validated && reliable(d.Encapsulation)}
	b.carriers[id] = c
	b.use(now, c)
}

// Receive takes a request that came by a carrier. Errors are for the debug log
// and match ErrStale, ErrCarrier, ErrCookie or ErrAddress; nothing has changed
// then. An error of the random source is returned too.
func (b *Binding) Receive(now time.Time, m *regmsg.Request, a Arrival) error {
	if m.HomeAddress != b.cfg.HomeAddress || m.HomeAgent != b.cfg.HomeAgent {
		return fmt.Errorf("request %d for %v: %w", m.Number, m.HomeAddress, ErrAddress)
	}
	same := b.reg.generation > 0 && m.Identification == b.reg.identification && m.Number == b.reg.number
	if m.Confirmation() {
		if !same {
			return fmt.Errorf("confirmation %d: %w", m.Number, ErrStale)
		}
		return b.confirm(now, m, a)
	}
	if !same && b.reg.generation > 0 && m.Identification <= b.reg.identification {
		return fmt.Errorf("request %d: %w", m.Number, ErrStale)
	}
	generation := b.reg.generation
	if !same {
		generation++
	}
	c := b.carriers[a.Carrier]
	if c == nil || c.generation != generation {
		var k regmsg.Cookie
		if _, err := io.ReadFull(b.cfg.Random, k[:]); err != nil {
			return fmt.Errorf("path cookie: %w", err)
		}
		n := &bound{id: a.Carrier, generation: generation, cookie: k}
		if c != nil {
			n.validated, n.received, n.sent = c.validated, c.received, c.sent
		}
		c = n
	}
	if !same {
		b.register(now, m)
	}
	if b.carriers[c.id] == nil {
		b.makeRoom()
	}
	b.carriers[c.id] = c
	c.guessed = false
	c.name, c.seen = called(m.Sent, a.Seen), clip(a.Seen)
	c.verdict = Judge(m.Sent, c.seen)
	c.left = m.Sent
	c.received += a.Bytes
	if a.Validated {
		c.validated = true
		c.proven = c.proven || reliable(c.name)
	}
	if m.Lifetime == 0 {
		// Deregistration is not implemented: an IKE SA ends by its own means.
		b.reply(c, 0, regmsg.CodeUnspecified)
		return nil
	}
	if m.PaddedSize == 0 {
		b.reply(c, 0, regmsg.CodeAccepted)
		return nil
	}
	first := c.padTo == 0
	c.oneWay = false
	c.padTo = int(m.PaddedSize)
	if a.Bytes > 0 {
		// No larger answer than what really came.
		c.padTo = min(c.padTo, a.Bytes)
	}
	before := b.carriers[b.reg.selected]
	moves := first && !b.late(now, c) && !b.reg.probe && b.reg.decision == 0 && (before == nil || b.replaces(c, before))
	if moves {
		b.choose(c)
	}
	b.reply(c, c.padTo, regmsg.CodeAccepted)
	if moves {
		if before != nil && before != c {
			// The client may never hear the other way; then it decides.
			b.reply(before, 0, regmsg.CodeAccepted)
		}
		b.use(now, c)
	}
	if !c.proven && !reliable(c.name) {
		c.resendAt = now.Add(backoff(firstAgain, c.resends+1, maxAgain))
	}
	return b.answerWays(now, m, a, c)
}

// called is the name of the encapsulation that a request came by. The client's own has
// the port that it sent to, which may not be the one that it came to.
func called(sent, seen transports.Description) transports.Name {
	if sent.Encapsulation.Base() == seen.Encapsulation {
		return sent.Encapsulation
	}
	return seen.Encapsulation
}

// replaces holds when c, heard later than o, had better carry the data. A fresh
// carrier of the same encapsulation means that the client has given up the
// other one.
func (b *Binding) replaces(c, o *bound) bool {
	return b.prefers(c, o) || c.name == o.name && c.id > o.id
}

// late holds when c's copy comes so long after the registration's first that
// somebody may have held it back to deliver it from elsewhere. Where a path is
// proven, data leaves it only when the cookie has come back.
func (b *Binding) late(now time.Time, c *bound) bool {
	selected := b.carriers[b.reg.selected]
	return !c.validated && selected != nil && selected.validated && now.Sub(b.reg.began) > lateAfter
}

// register begins a new registration.
func (b *Binding) register(now time.Time, m *regmsg.Request) {
	b.reg = registration{generation: b.reg.generation + 1, number: m.Number, identification: m.Identification, began: now, lifetime: m.Lifetime, probe: m.Probe, simultaneous: m.Simultaneous}
	for _, c := range b.carriers {
		c.resendAt = time.Time{}
		if !b.inUse(c) && c.generation < b.reg.generation && c.closeAt.IsZero() {
			c.closeAt = now.Add(grace)
		}
	}
}

// confirm takes the echo of a cookie.
func (b *Binding) confirm(now time.Time, m *regmsg.Request, a Arrival) error {
	c := b.carriers[a.Carrier]
	if m.Down != "" {
		return b.confirmWays(now, m, a)
	}
	// A standby or a probe may have been registered since the registration that has
	// the data; where the mapping of that one's carrier changes, the cookie proves it.
	other := c != nil && c.generation != b.reg.generation
	if c == nil || other && (c.before == 0 || c.id != b.current.ID || m.Decision != 0) {
		return fmt.Errorf("confirmation %d: %w", m.Number, ErrCarrier)
	}
	if !c.cookie.Equal(m.Cookie) {
		return fmt.Errorf("confirmation %d: %w", m.Number, ErrCookie)
	}
	if m.Decision != 0 && m.Decision < b.reg.decision {
		return fmt.Errorf("decision %d.%d: %w", m.Number, m.Decision, ErrStale)
	}
	c.received += a.Bytes
	if !c.validated {
		c.validated, c.revertAt = true, time.Time{}
		if old := b.carriers[c.before]; old != nil {
			old.closeAt = now.Add(grace)
		}
		b.do(Validate{ID: c.id})
	}
	if other {
		return nil
	}
	if m.PaddedSize > 0 {
		c.proven, c.resendAt = true, time.Time{}
	}
	selected := b.carriers[b.reg.selected]
	switch {
	case m.Decision != 0:
		b.reg.decision = m.Decision
		moves := c != selected || b.current.ID != c.id || b.upID != 0
		if moves {
			b.choose(c)
		}
		// A decision is answered each time: the last answer may be lost.
		b.reply(c, 0, regmsg.CodeAccepted)
		if moves {
			b.use(now, c)
		}
	case c.proven && b.reg.decision == 0 && !b.reg.probe && c.padTo > 0 && (selected == nil || c != selected && b.replaces(c, selected)):
		b.choose(c)
		b.reply(c, 0, regmsg.CodeAccepted)
		if selected != nil {
			b.reply(selected, 0, regmsg.CodeAccepted)
		}
		b.use(now, c)
	}
	return nil
}

// Closed tells that a carrier has ended otherwise than by an action Close. If
// data left by it, another by which the client was heard takes over.
func (b *Binding) Closed(now time.Time, id CarrierID) {
	c := b.carriers[id]
	if c == nil {
		return
	}
	delete(b.carriers, id)
	if b.reg.selected == id {
		b.reg.selected = 0
	}
	if b.upID == id {
		b.upID = 0
	}
	if b.current.ID != id {
		return
	}
	b.current = Path{}
	var best *bound
	for _, o := range b.sorted() {
		if !o.proven || best != nil && (o.generation < best.generation || o.generation == best.generation && !b.prefers(o, best)) {
			continue
		}
		best = o
	}
	if best == nil {
		return
	}
	if best.generation == b.reg.generation && b.reg.generation > 0 {
		b.choose(best)
		b.reply(best, 0, regmsg.CodeAccepted)
	}
	best.closeAt = time.Time{}
	b.use(now, best)
}

// Current is the path that data leaves by, Local being the server; its ID is
// zero if there is none.
func (b *Binding) Current() Path { return b.current }

// NextTimeout is when Advance wants to be called; zero: never.
func (b *Binding) NextTimeout() (t time.Time) {
	for _, c := range b.carriers {
		for _, u := range []time.Time{c.closeAt, c.resendAt, c.revertAt} {
			if !u.IsZero() && (t.IsZero() || u.Before(t)) {
				t = u
			}
		}
	}
	return t
}

// Advance does what is due at now.
func (b *Binding) Advance(now time.Time) {
	for _, c := range b.sorted() {
		if !c.revertAt.IsZero() && !now.Before(c.revertAt) {
			b.revert(now, c)
			continue
		}
		if !c.closeAt.IsZero() && !now.Before(c.closeAt) {
			b.close(c)
			continue
		}
		if c.resendAt.IsZero() || now.Before(c.resendAt) {
			continue
		}
		c.resendAt = time.Time{}
		c.resends++
		if c.resends < maxAgains {
			c.resendAt = now.Add(backoff(firstAgain, c.resends+1, maxAgain))
		}
		// The reply or its confirmation was lost.
		for _, size := range []int{0, c.padTo} {
			// Data by this carrier has the other part of what may be sent.
			if c.validated || c.sent+max(size, shortReply) <= c.received {
				b.reply(c, size, regmsg.CodeAccepted)
			}
		}
	}
}

// Actions gives what is to be done, in order, once.
func (b *Binding) Actions() []Action {
	a := b.actions
	b.actions = nil
	return a
}

func (b *Binding) do(a Action) { b.actions = append(b.actions, a) }

// choose selects c in the running registration.
func (b *Binding) choose(c *bound) {
	b.reg.selected = c.id
	if b.reg.revision < 1<<16-1 {
		b.reg.revision++
	}
}

// use moves the data to c; what older registrations used is closed after a while.
func (b *Binding) use(now time.Time, c *bound) { b.useBoth(now, c, nil) }

// useBoth is use where the client's data comes by up, if that is not nil.
func (b *Binding) useBoth(now time.Time, c, up *bound) {
	u := Use{ID: c.id, Verdict: c.verdict, Validated: c.validated}
	u.Also, u.AlsoFor = b.both(now, c)
	b.current = Path{ID: c.id, Name: c.name, Local: c.seen.Destination, Remote: c.seen.Source, Verdict: c.verdict, Since: now}
	c.closeAt = time.Time{}
	if b.upID = 0; up != nil {
		b.upID, u.From, up.closeAt = up.id, up.id, time.Time{}
	}
	for _, o := range b.carriers {
		if o != c && o != up && o.generation < c.generation && o.closeAt.IsZero() {
			o.closeAt = now.Add(grace)
		}
	}
	b.do(u)
}

// reply answers the copies that came by c.
func (b *Binding) reply(c *bound, padTo int, code regmsg.Code) {
	m := &regmsg.Reply{
		Code: code, Lifetime: b.reg.lifetime,
		HomeAddress: b.cfg.HomeAddress, HomeAgent: b.cfg.HomeAgent,
		Identification: b.reg.identification, Number: b.reg.number, Revision: b.reg.revision,
		Verdict: c.verdict, Seen: c.seen,
		Sent: c.seen.Reverse(), PaddedSize: uint16(padTo), Validated: c.validated, OneWay: c.oneWay, Cookie: c.cookie, Decision: b.reg.decision,
	}
	if s := b.carriers[b.reg.selected]; s != nil {
		m.Up, m.Down, m.Here = s.name, s.name, s == c
		if up := b.carriers[b.upID]; up != nil && s.id == b.current.ID {
			m.Up = up.name
		}
	}
	for _, o := range b.sorted() {
		// Of this one the reply itself tells, if it is as large as what came.
		if (o != c || padTo == 0 && o.padTo > 0) && !o.guessed && o.generation == b.reg.generation && len(m.Heard) < regmsg.MaxNames && !slices.ContainsFunc(m.Heard, func(h regmsg.Heard) bool { return h.Encapsulation == o.name }) {
			m.Heard = append(m.Heard, regmsg.Heard{Encapsulation: o.name, Full: o.padTo > 0})
		}
	}
	if b.cfg.Offers != nil {
		if m.Offers = b.cfg.Offers(); len(m.Offers) > regmsg.MaxNames {
			m.Offers = m.Offers[:regmsg.MaxNames]
		}
	}
	if b.cfg.ReceiveState != nil {
		m.Received = b.cfg.ReceiveState()
	}
	c.sent += max(padTo, shortReply)
	b.do(Send{ID: c.id, Message: m, PadTo: padTo})
}

func (b *Binding) close(c *bound) {
	delete(b.carriers, c.id)
	if b.reg.selected == c.id {
		b.reg.selected = 0
	}
	b.do(Close{ID: c.id})
}

// prefers holds when c's encapsulation comes before o's.
func (b *Binding) prefers(c, o *bound) bool { return b.rank(c.name) < b.rank(o.name) }

func (b *Binding) rank(n transports.Name) int {
	// Of several ports the one that was heard first is as good as any.
	if i := slices.IndexFunc(b.cfg.Preference, func(p transports.Name) bool { return p.Base() == n.Base() }); i >= 0 {
		return i
	}
	return len(b.cfg.Preference)
}

// makeRoom bounds the carriers kept for one more: the oldest that carries no
// data gives way.
func (b *Binding) makeRoom() {
	for len(b.carriers) >= maxBound {
		var oldest *bound
		for _, c := range b.sorted() {
			if !b.inUse(c) && (oldest == nil || c.generation < oldest.generation) {
				oldest = c
			}
		}
		b.close(oldest)
	}
}

func (b *Binding) sorted() []*bound {
	cs := make([]*bound, 0, len(b.carriers))
	for _, c := range b.carriers {
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(x, y *bound) int { return cmp.Compare(x.id, y.id) })
	return cs
}

// Timing and bounds of our own.
const (
	// grace is how long superseded carriers stay, so that packets in flight
	// arrive.
	grace = 2 * time.Second

	// A padded reply that nobody confirmed is sent again after this, doubling
	// to maxAgain, maxAgains times.
	firstAgain = 500 * time.Millisecond
	maxAgain   = 4 * time.Second
	maxAgains  = 5

	// "an endpoint MUST limit the amount of data it sends to the unvalidated
	// address to three times the amount of data received from that address";
	// RFC 9000, Section 8.
	amplification = 3
	shortReply    = 512 // bytes that a short reply is reckoned to have, at most

	// lateAfter is how long after a registration's first copy the others come,
	// at the most, where nobody holds them back.
	lateAfter = 5 * time.Second

	maxBound = 24 // carriers of one client
)
