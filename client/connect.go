package client

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/ipsec/ike/message"
	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

const (
	// retryAfter is the pause before the next IKE SA is tried when one failed.
	retryAfter = time.Second
	// lonelyLimit is how long registrations may stay unanswered before a new
	// IKE SA is tried beside them: the server may have lost the old one.
	lonelyLimit = 20 * time.Second
	// holdFor is how long the answer to such an attempt is held back. When a
	// network comes back, the answer to the registration arrives with it, and
	// then the old SA is as good as ever.
	holdFor = 300 * time.Millisecond
	maxHeld = 16
)

// A heldMessage is an IKE message that waits, with the carrier it came by.
type heldMessage struct {
	by  mobility.CarrierID
	msg []byte
}

// connect starts IKE over every encapsulation at once.
func (c *Client) connect(now time.Time) {
	c.retryAt = time.Time{}
	if _, err := netip.ParseAddr(c.host); err != nil {
		// The name may lead elsewhere by now.
		c.known, c.remotes = c.remotes, nil
	}
	c.lookAround()
	c.attached = c.attachment()
	c.found = c.c.Places.Path(c.attached)
	s, err := c.newSession(now)
	if err != nil {
		c.fatal = err
		return
	}
	c.session, c.request = s, nil
	// The first request has to exist before a carrier asks for its first flight.
	c.ikeEvents(now, s)
	c.openMissing()
}

// openMissing opens a carrier of each encapsulation that has none.
func (c *Client) openMissing() {
	for _, t := range c.c.Transports {
		// ESP is only climbed to: see mobility.Registrar.
		have := t.Name() == transports.ESP && c.forced != transports.ESP || !c.allowed(t.Name())
		for _, ca := range c.carriers {
			have = have || ca.name == t.Name()
		}
		if !have {
			c.openCarrier(c.newID(), t.Name(), c.first())
		}
	}
}

// hold keeps a message for a new session until holdFor after the first.
func (c *Client) hold(now time.Time, h heldMessage) {
	if c.heldUntil.IsZero() {
		c.heldUntil = now.Add(holdFor)
		if c.foreign != nil {
			// Nothing else asks the old SA just now.
			c.session.Retransmit(now)
			c.ikeEvents(now, c.session)
			if c.next == nil {
				return
			}
		}
	}
	if len(c.held) < maxHeld {
		c.held = append(c.held, h)
	}
}

// release gives a new session the answers that were held back. A server that
// answers IKE but not registrations has lost the old SA.
func (c *Client) release(now time.Time) {
	if c.next == nil || len(c.held) == 0 || now.Before(c.heldUntil) {
		return
	}
	held := c.held
	c.held = nil
	for _, h := range held {
		if c.next != nil {
			c.answered = h.by
			c.next.Receive(now, h.msg, h.by)
			c.ikeEvents(now, c.next)
		}
	}
}

// dropNext gives up the session that was made beside the one in use.
func (c *Client) dropNext() {
	c.next, c.request, c.held, c.heldUntil = nil, nil, nil, time.Time{}
}

// retry starts the next attempt when its time has come.
func (c *Client) retry(now time.Time) {
	if !c.retryAt.IsZero() && !now.Before(c.retryAt) {
		c.connect(now)
	}
}

func (c *Client) newSession(now time.Time) (*ike.Session, error) {
	if c.c.Gateway != nil {
		return c.newGatewaySession(now)
	}
	public := c.c.PrivateKey.Public().(ed25519.PublicKey)
	id, err := ike.KeyIdentity(public)
	if err != nil {
		return nil, fmt.Errorf("own key: %w", err)
	}
	empty := func(t ike.AttributeType) ike.Attribute { return ike.Attribute{Type: t} }
	return ike.NewInitiator(ike.InitiatorConfig{
		Config: ike.Config{
			Logger:     c.log,
			Local:      id,
			PrivateKey: c.c.PrivateKey,
			NewSPI:     c.table.NewSPI,
			KeyLog:     c.c.KeyLog,

			PostQuantum: c.c.PostQuantum,

			IKELifetime:   c.c.IKELifetime,
			ChildLifetime: c.c.ChildLifetime,
		},
		PeerKey:   c.c.ServerKey,
		Mark:      c.c.Mark,
		Enrolment: c.c.Enrolment,
		Request: ike.Configuration{
			empty(ike.InternalIP4Address), empty(ike.InternalIP6Address),
			empty(ike.InternalIP4DNS), empty(ike.InternalIP6DNS),
			empty(ike.InternalHomeAgent4), empty(ike.InternalHomeAgent6),
		},
	}, now)
}

// streamPadded is the size of padded registrations on streams: with the short copy
// it has room in one segment of a path with an MTU of 1,280 bytes, and so in a SYN.
// TCP cuts data to the path's size by itself.
const streamPadded = 900

// paddedSize is what a registration is padded to.
func (c *Client) paddedSize(n transports.Name) int {
	if n.Datagrams() {
		return c.link.FullSize()
	}
	return min(streamPadded, c.link.FullSize())
}

// ikeFirst gives the IKE request under way for a carrier's first flight.
func (c *Client) ikeFirst() []transports.Packet {
	if c.request == nil || c.connected() && c.next == nil {
		return nil
	}
	c.ikeSent.Add(uint64(len(c.request)))
	var ps []transports.Packet
	for _, m := range c.request {
		ps = append(ps, transports.Packet{Kind: transports.KindIKE, Urgent: true, Data: m})
	}
	return ps
}

// ikeIn takes an IKE message that came by a carrier.
func (c *Client) ikeIn(now time.Time, id mobility.CarrierID, msg []byte) {
	c.answered = id
	c.heard(id)
	ispi, _, ok := ike.SPIs(msg)
	if !ok {
		return
	}
	c.arrived = id
	defer func() { c.arrived = 0 }()
	for _, s := range []*ike.Session{c.next, c.session} {
		if s == nil {
			continue
		}
		// The session in use takes what is nobody's: it has other SPIs from before
		// it was rekeyed, and hints have none.
		if mine, _ := s.SPIs(); mine == ispi || s == c.session {
			if s == c.next && (c.heldUntil.IsZero() || now.Before(c.heldUntil)) {
				c.hold(now, heldMessage{id, msg})
				return
			}
			s.Receive(now, msg, id)
			c.ikeEvents(now, s)
			return
		}
	}
}

// ikeEvents does what an IKE session asks for.
func (c *Client) ikeEvents(now time.Time, s *ike.Session) {
	for _, e := range s.Events() {
		switch e := e.(type) {
		case ike.Send:
			c.sendMessage(s, e)
		case ike.Established:
			c.established(now, s, e)
		case ike.ChildCreated:
			if err := c.link.Install(e.Child); err != nil {
				c.log.Error("keys not installed", slog.Any("err", err))
			}
			c.children[e.Child.InboundSPI] = s
			if c.foreign != nil && s == c.session {
				c.foreignChild(e.Child)
			}
		case ike.ChildDeleted:
			delete(c.children, e.InboundSPI)
			c.link.Remove(e.InboundSPI)
			if c.foreign != nil && s == c.session {
				c.foreignBare(now, s)
			}
		case ike.Alive:
			if c.foreign != nil && s == c.session {
				c.foreignAlive(now, e)
			}
		case ike.Closed:
			c.sessionClosed(now, s, e.Err)
		}
	}
}

// flushIKE sends what a session has queued and drops its other events.
func (c *Client) flushIKE(s *ike.Session) {
	for _, e := range s.Events() {
		if e, ok := e.(ike.Send); ok {
			c.sendMessage(s, e)
		}
	}
}

// sendMessage sends a response to where its request came from, and a request
// over everything until the IKE SA is made, later over the carrier in use.
func (c *Client) sendMessage(s *ike.Session, e ike.Send) {
	to := func(id mobility.CarrierID) {
		c.ikeSent.Add(1)
		c.send(id, transports.KindIKE, e.Message)
	}
	if id, ok := e.Path.(mobility.CarrierID); ok {
		if c.registrar != nil && id == c.registrar.DownPath().ID {
			id = c.currentID() // nothing gets back by that
		}
		to(id)
		return
	}
	if c.connected() && s == c.session {
		to(c.currentID())
		// The carrier in use may be dead though the server says something by
		// another one.
		if id := c.arrived; id != 0 && id != c.currentID() {
			to(id)
		}
		return
	}
	if e.Fragment == 0 {
		c.request = nil
	}
	c.request = append(c.request, e.Message)
	if e.Retransmission && !c.connected() {
		c.openMissing()
	}
	for id := range c.carriers {
		to(id)
	}
}

// established takes up a link: its inner addresses, and the carrier that the
// answer came by. The registration that follows finds out about the others.
func (c *Client) established(now time.Time, s *ike.Session, e ike.Established) {
	in, err := c.innerFor(e.Configuration)
	if err != nil {
		c.fatal = fmt.Errorf("the server's configuration is of no use: %w", err)
		return
	}
	if s == c.next {
		c.log.Info("the server had lost the link; a new one is made")
		c.dropChildren(c.session)
		c.session = s
		c.dropNext()
	}
	c.request, c.lastErr, c.portal, c.lonely = nil, nil, nil, time.Time{}
	c.attached, c.replayed, c.learnt = c.attachment(), 0, 0
	c.lookAround()
	c.link.SetRoundTrip(e.RoundTrip)
	if !in.gateway.IsValid() {
		c.takeForeign(now, in, e)
		c.becomeReady()
		return
	}

	names := make([]transports.Name, len(c.c.Transports))
	for i, t := range c.c.Transports {
		names[i] = t.Name()
	}
	c.timeline, c.where = nil, ""
	c.registrar = mobility.NewRegistrar(mobility.RegistrarConfig{
		HomeAddress:    in.addresses[0],
		HomeAgent:      in.gateway,
		Encapsulations: names,
		Identification: uint64(now.UnixNano()),
		PaddedSize:     c.paddedSize,
		NextID:         c.newID,
		ReceiveState:   c.link.ReceiveState,
		Usable:         c.usable,
		Prefer:         c.remembered,
		Interfaces:     c.interfaces,
		Forced:         c.forced,
		Standby:        c.c.Standby,
		ClientDecides:  c.c.ClientDecides,
		Logger:         c.log,
	})
	for id, ca := range c.carriers {
		if ca.open != nil || id == c.answered {
			c.registrar.Adopt(now, id, ca.desc, id == c.answered)
		} else {
			c.closeCarrier(id)
		}
	}
	c.registrar.Start(now, mobility.TriggerConnect)
	c.inner.Store(in)
	// What was ready belongs to a server that may have forgotten it.
	c.pool.Flush()
	if in.resolver == nil {
		c.pool.Fill()
	}
	c.log.Info("connected", slog.String("server", c.c.Server), slog.Any("inner", in.addresses))
	c.becomeReady()
}

func (c *Client) becomeReady() {
	if !c.wasReady {
		c.wasReady = true
		close(c.ready)
	}
}

// innerFor makes the inside of the link from what the server assigned. When
// nothing changed it is the one there was, with all its connections.
func (c *Client) innerFor(conf ike.Configuration) (*inner, error) {
	in := &inner{}
	a4, ok4 := conf.Address(ike.InternalIP4Address)
	a6, ok6 := conf.Address(ike.InternalIP6Address)
	g4, okg4 := conf.Address(ike.InternalHomeAgent4)
	g6, okg6 := conf.Address(ike.InternalHomeAgent6)
	switch {
	case ok4 && okg4:
		in.gateway = g4
	case ok6 && okg6:
		in.gateway = g6
	case c.c.Gateway == nil:
		return nil, errors.New("it assigned no inner address, or named no home agent: is it a godwit server?")
	case !ok4 && !ok6:
		return nil, errors.New("it assigned no inner address: give the gateway an address pool")
	default:
		in.resolver = &resolver{servers: dnsServers(conf, ok4, ok6), v4: ok4, v6: ok6}
	}
	if ok4 {
		in.addresses = append(in.addresses, a4)
	}
	if ok6 {
		in.addresses = append(in.addresses, a6)
	}
	if in.gateway.Is6() && in.gateway.IsValid() {
		slices.SortFunc(in.addresses, func(a, b netip.Addr) int { return b.Compare(a) })
	}
	old := c.inner.Load()
	if old != nil && slices.Equal(old.addresses, in.addresses) && old.gateway == in.gateway {
		if in.resolver != nil && !slices.Equal(in.resolver.servers, old.resolver.servers) {
			in.stack, in.resolver.stack = old.stack, old.stack
			return in, nil
		}
		return old, nil
	}
	mtu := tunnel.InnerMTU
	if in.resolver != nil {
		mtu = tunnel.ForeignMTU
	}
	stack, err := tunnel.New(tunnel.Config{
		Addresses: in.addresses, MTU: mtu, Output: c.link.Output, NoOffload: c.c.NoOffload, Logger: c.log,
		// A gateway forwards packets that others made.
		VerifyChecksums: in.resolver != nil,
		Mended:          in.resolver == nil && !c.c.NoRecovery,
	})
	if err != nil {
		return nil, err
	}
	if in.resolver != nil {
		in.resolver.stack = stack
	}
	if old != nil {
		c.log.Warn("the inner addresses changed; open connections are lost")
		c.tasks.Go(old.stack.Close)
	}
	in.stack = stack
	return in, nil
}

// sessionClosed ends an IKE SA: for good when the server refuses us, otherwise
// the next attempt follows.
func (c *Client) sessionClosed(now time.Time, s *ike.Session, err error) {
	again := c.wantsChildless(s, err)
	if again {
		c.childless, err = true, nil
	}
	if s == c.next {
		c.dropNext()
		c.lonely = now
		c.refused(err)
		return
	}
	if s != c.session {
		return
	}
	c.dropChildren(s)
	c.session, c.request = nil, nil
	if c.refused(err) {
		return
	}
	lost := errors.Is(err, ike.ErrLost)
	if lost && c.next != nil {
		c.dropNext()
	}
	if err != nil {
		c.lastErr = err
		c.log.Warn("the link has ended; connecting anew", slog.Any("err", err))
	}
	c.registrar, c.foreign = nil, nil
	c.link.Recover(!c.c.NoRecovery)
	c.link.Discover(true)
	c.link.Use(nil, false, 0)
	for id := range c.carriers {
		// What the server that was started anew answered by is good enough to
		// connect by.
		if !lost || id != c.arrived {
			c.closeCarrier(id)
		}
	}
	c.retryAt = now.Add(retryAfter)
	if lost || again {
		c.retryAt = now
	}
}

// refused reports that trying again is of no use, and keeps the reason. Once
// there was a link, only what the server itself said ends it: what a network
// on the way answers must not.
func (c *Client) refused(err error) bool {
	var n *ike.NotifyError
	isNotify := errors.As(err, &n)
	if g := c.c.Gateway; g != nil {
		if !c.wasReady || isNotify && n.Type == message.AuthenticationFailed {
			c.fatal = g.refusal(c.c.Server, err)
		}
		return c.fatal != nil
	}
	switch {
	case isNotify && n.Type == message.AuthenticationFailed:
		c.fatal = &RefusedError{Server: c.c.Server, Err: err}
	case c.wasReady:
	case errors.Is(err, ike.ErrPeerKey):
		c.fatal = &RefusedError{Server: c.c.Server, Err: err}
	case isNotify:
		c.fatal = fmt.Errorf("%s refuses the connection: %w", c.c.Server, err)
	}
	return c.fatal != nil
}

// dropChildren removes the SAs of a session that is gone.
func (c *Client) dropChildren(s *ike.Session) {
	for spi, of := range c.children {
		if of == s {
			delete(c.children, spi)
			c.link.Remove(spi)
		}
	}
}
