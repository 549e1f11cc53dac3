package client

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/ipsec/ike/message"
	"github.com/godwit-net/godwit/mobility"
)

// A Gateway says how to authenticate with an IKEv2 gateway that need not be
// godwit. Which of the two it is shows in the exchange: godwit names its home
// agent in the configuration payload. Another gateway routes inner packets
// itself, and is moved with MOBIKE (RFC 4555).
type Gateway struct {
	// Local is what this end calls itself; required.
	Local ike.Identity
	// Remote is what the gateway has to call itself; nil takes any identity
	// that is proven.
	Remote *ike.Identity

	// One of these ways is chosen.

	PSK ike.Secret // a shared key

	Certificates   [][]byte            // a certificate in DER, and those between it and a root,
	CertificateKey crypto.Signer       // with its key,
	Roots          []*x509.Certificate // and the roots of the gateway's

	Login       *ike.Login // a name and a password, with Roots or
	SystemRoots bool       // the authorities that this system trusts

	PrivateKey ed25519.PrivateKey // a raw public key,
	PeerKey    ed25519.PublicKey  // with the gateway's, pinned
}

func (g *Gateway) check() error {
	switch {
	case len(g.Local.Data) == 0:
		return errors.New("an own identity is needed")
	case g.Login != nil && (len(g.Roots) > 0 || g.SystemRoots && g.Remote != nil):
	case len(g.Certificates) > 0 && g.CertificateKey != nil && len(g.Roots) > 0:
	case len(g.PSK) == 0 && (g.PrivateKey == nil || g.PeerKey == nil):
		return errors.New("a shared key, a certificate with roots, or a pair of keys is needed")
	}
	return nil
}

// newGatewaySession starts IKE with a gateway. It asks for the inner addresses
// that there were before, so that connections can go on.
func (c *Client) newGatewaySession(now time.Time) (*ike.Session, error) {
	ask := map[ike.AttributeType][]byte{}
	if in := c.inner.Load(); in != nil {
		for _, a := range in.addresses {
			t := ike.InternalIP4Address
			if a.Is6() {
				t = ike.InternalIP6Address
			}
			ask[t] = ike.AddressAttribute(t, a).Value
		}
	}
	var request ike.Configuration
	for _, t := range []ike.AttributeType{
		ike.InternalIP4Address, ike.InternalIP6Address, ike.InternalIP4DNS, ike.InternalIP6DNS,
		ike.InternalHomeAgent4, ike.InternalHomeAgent6,
	} {
		request = append(request, ike.Attribute{Type: t, Value: ask[t]})
	}
	g := c.c.Gateway
	return ike.NewInitiator(ike.InitiatorConfig{
		Config: ike.Config{
			Logger:     c.log,
			Local:      g.Local,
			PSK:        g.PSK,
			PrivateKey: g.PrivateKey,
			NewSPI:     c.table.NewSPI,
			KeyLog:     c.c.KeyLog,
			MOBIKE:     true,

			PostQuantum: c.c.PostQuantum,

			Certificates:   g.Certificates,
			CertificateKey: g.CertificateKey,
			Roots:          g.Roots,
			SystemRoots:    g.SystemRoots,

			IKELifetime:   c.c.IKELifetime,
			ChildLifetime: c.c.ChildLifetime,
		},
		PeerKey:   g.PeerKey,
		Login:     g.Login,
		Remote:    g.Remote,
		Request:   request,
		Childless: c.childless,
	}, now)
}

// wantsChildless tells whether the way in which a session ended says that the
// gateway wants the first Child SA to be made after IKE_AUTH: RFC 6023 has no
// notification for that, and strongSwan calls it a syntax error.
func (c *Client) wantsChildless(s *ike.Session, err error) bool {
	var n *ike.NotifyError
	return c.c.Gateway != nil && !c.childless && s.Childless() && errors.As(err, &n) && n.Type == message.InvalidSyntax
}

// refusal tells in words why an exchange with the gateway failed for good; nil
// if trying again may help.
func (g *Gateway) refusal(server string, err error) error {
	var n *ike.NotifyError
	switch {
	case errors.Is(err, ike.ErrLogin):
		return fmt.Errorf("%s refuses user %q: the name or the password is wrong", server, g.Login.Name)
	case errors.Is(err, ike.ErrLoginMethod):
		return fmt.Errorf("%s wants another way to log in than EAP-MSCHAPv2: allow that at the gateway", server)
	case errors.As(err, &n):
	case errors.Is(err, ike.ErrAuthentication), errors.Is(err, ike.ErrPeerKey):
		return fmt.Errorf("%s did not prove to be the gateway that it should be (%v): compare identity and secret with its settings", server, err)
	default:
		return nil
	}
	what := map[ike.NotifyType]string{
		message.AuthenticationFailed:   fmt.Sprintf("refuses %v: the identity or the secret is wrong: compare both with the gateway's settings", g.Local),
		message.NoProposalChosen:       "and this client have no algorithms in common: allow AES-GCM or ChaCha20-Poly1305 with X25519 or P-256 at the gateway",
		message.TSUnacceptable:         "allows this client no addresses: look at the gateway's traffic selectors",
		message.InternalAddressFailure: "has no inner address for this client: give the gateway an address pool",
		message.FailedCPRequired:       "has no inner address for this client: give the gateway an address pool",
	}[n.Type]
	if what == "" {
		what = "refuses the connection: look at the gateway's log"
	}
	return fmt.Errorf("%s %s (it answered %v)", server, what, n.Type)
}

// foreign is the link to a gateway that knows no registrations. It belongs to
// the owner's goroutine.
type foreign struct {
	current mobility.CarrierID // takes the data
	next    mobility.CarrierID // being opened for a move; 0: none
	old     mobility.CarrierID // was in use; what is under way on it still counts until the move is confirmed
	trigger mobility.Trigger   // of the move under way, or the last one
	moved   bool               // the gateway has not confirmed the last move yet
	started time.Time          // of the last move, or the connection
	since   time.Time          // current is in use
	probed  time.Time          // silence last made us ask for a sign of life
	wait    time.Duration      // until silence may do so again
	retryAt time.Time          // of the next attempt to open a carrier; zero: none is due
	failed  time.Duration      // the last pause before such an attempt; 0: the last one went well
	asked   time.Time          // since when the gateway has left a question unanswered; zero: it has not
	rtt     time.Duration
	moves   []Registration // finished ones, the newest last
	number  uint32
}

const (
	// Silence asks for a sign of life after these times, the longer the more
	// often it was for nothing: a gateway need not answer each packet.
	minProbe = 2 * time.Second
	maxProbe = 30 * time.Second
	maxMoves = 32
	// minRetry is the first pause when no carrier could be opened.
	minRetry = 5 * time.Millisecond
	// newsDelay is how long a link may have been cut before we hear of it.
	newsDelay = 30 * time.Millisecond
	// deafLimit is how long the gateway may leave a question unanswered before a
	// new IKE SA is tried beside the one in use: a gateway that has lost that does
	// not say so. By then the question has been asked four times.
	deafLimit = 6 * time.Second
)

// takeForeign takes up a link to a gateway that named no home agent.
func (c *Client) takeForeign(now time.Time, in *inner, e ike.Established) {
	c.foreign = &foreign{current: c.answered, trigger: mobility.TriggerConnect, started: now, since: now, rtt: e.RoundTrip}
	c.link.Recover(false)
	c.link.Discover(false)
	c.heard(c.answered)
	for id := range c.carriers {
		if id != c.answered {
			c.closeCarrier(id)
		}
	}
	c.inner.Store(in)
	if ca := c.carriers[c.answered]; ca != nil && ca.open != nil {
		c.link.Use(ca.open, true, 0)
	}
	in.stack.Resume() // connections that went through an earlier link
	c.keepalive = now.Add(keepaliveEvery)
	c.log.Info("connected to a gateway that is not godwit", slog.String("server", c.c.Server), slog.Any("inner", in.addresses))
}

// connected tells whether there is an IKE SA with a link.
func (c *Client) connected() bool { return c.registrar != nil || c.foreign != nil }

// currentID is the carrier in use, 0 for none.
func (c *Client) currentID() mobility.CarrierID {
	switch {
	case c.registrar != nil:
		return c.registrar.Current().ID
	case c.foreign != nil:
		return c.foreign.current
	}
	return 0
}

// moveForeign opens a new carrier, from the address that packets have now.
func (c *Client) moveForeign(now time.Time, trigger mobility.Trigger) {
	f := c.foreign
	if f.next != 0 {
		c.closeCarrier(f.next)
	}
	f.retryAt = time.Time{}
	if !f.moved {
		f.started, f.trigger = now, trigger
	}
	f.next = c.newID()
	c.lookAround() // news of addresses and of routes come one after the other
	c.openCarrier(f.next, c.c.Transports[0].Name(), c.first())
}

// foreignOpened takes a new carrier into use. The gateway hears of it at once,
// and data goes right behind: nothing is gained by asking first whether the
// path works, as data is lost either way if it does not.
func (c *Client) foreignOpened(now time.Time, ca *carrier) {
	f := c.foreign
	if ca.id != f.next {
		return
	}
	cut := c.cutOff(f.current)
	c.closeCarrier(f.old)
	f.old, f.current, f.next, f.since, f.moved, f.wait, f.failed = f.current, ca.id, 0, now, true, 0, 0
	c.log.Info("moved", slog.Any("transport", ca.name), slog.Any("local", ca.desc.Source))
	c.tellAddress(now)
	c.ikeEvents(now, c.session)
	if c.foreign != f {
		return // that was the end of the session
	}
	if cut {
		// What left lately by the old address did not get far.
		c.link.UseProvisionally(ca.open, f.started.Add(-newsDelay))
		c.inner.Load().stack.Resume()
	} else {
		c.link.Use(ca.open, true, 0)
	}
	c.keepalive = now.Add(keepaliveEvery)
}

// cutOff tells whether packets can certainly not leave by a carrier any more.
func (c *Client) cutOff(id mobility.CarrierID) bool {
	ca := c.carriers[id]
	if ca == nil {
		return true // it has ended
	}
	at := ca.desc.Source.Addr()
	return c.c.HasAddress != nil && at.IsValid() && !c.c.HasAddress(at.Unmap())
}

// tellAddress lets the gateway know where we are now, by MOBIKE. A gateway
// without it takes the address of any authentic request of a peer behind a NAT
// (RFC 7296, Section 2.23).
func (c *Client) tellAddress(now time.Time) {
	if c.foreign.asked.IsZero() {
		c.foreign.asked = now
	}
	if c.session.MOBIKE() {
		c.session.UpdateAddresses(now)
		return
	}
	c.session.Retransmit(now)
	c.session.Liveness(now)
}

// foreignLost acts on a carrier that did not open or has ended.
func (c *Client) foreignLost(now time.Time, id mobility.CarrierID) {
	f := c.foreign
	switch id {
	case f.next:
		// In the middle of a change an address may be gone that was just there,
		// or not be there yet.
		f.failed = min(max(2*f.failed, minRetry), retryAfter)
		f.next, f.retryAt = 0, now.Add(f.failed)
	case f.current:
		c.link.Use(nil, false, 0)
		if f.next == 0 {
			c.moveForeign(now, mobility.TriggerSocket)
		}
	}
}

// foreignAlive notes that the gateway has answered a request.
func (c *Client) foreignAlive(now time.Time, e ike.Alive) {
	f := c.foreign
	f.asked = time.Time{}
	if e.RoundTrip > 0 {
		f.rtt = e.RoundTrip
		c.link.SetRoundTrip(e.RoundTrip)
	}
	if !f.moved || f.next != 0 || c.session.MOBIKE() && !e.Moved {
		return
	}
	c.closeCarrier(f.old)
	f.moved, f.old = false, 0
	f.number++
	r := Registration{
		Number: f.number, Trigger: string(f.trigger), Started: f.started, Selected: string(c.c.Transports[0].Name()),
		Verdict: "none", DurationMs: ms(now.Sub(f.started)), Done: true,
	}
	if f.moves = append(f.moves, r); len(f.moves) > maxMoves {
		f.moves = f.moves[1:]
	}
}

// foreignAct does what is due.
func (c *Client) foreignAct(now time.Time) {
	if t := c.foreign.retryAt; !t.IsZero() && !now.Before(t) {
		c.moveForeign(now, c.foreign.trigger)
	}
	c.watchDeafness(now)
}

// watchDeafness tries a new IKE SA when the gateway does not answer: one that
// was restarted knows no SA of ours. If the old one is answered after all, the
// attempt is dropped.
func (c *Client) watchDeafness(now time.Time) {
	switch t := c.deafAt(); {
	case c.foreign.asked.IsZero():
		c.lonely = time.Time{}
		if c.next != nil {
			c.dropNext()
		}
	case c.next == nil && !now.Before(t):
		s, err := c.newSession(now)
		if err != nil {
			c.log.Error("no new IKE SA", slog.Any("err", err))
			c.lonely = now
			return
		}
		c.log.Debug("the gateway does not answer; trying a new IKE SA")
		c.next = s
		c.ikeEvents(now, s)
	}
}

// deafAt is when a new IKE SA is tried; the zero time if the gateway owes no
// answer.
func (c *Client) deafAt() time.Time {
	if c.foreign.asked.IsZero() {
		return time.Time{}
	}
	if c.lonely.After(c.foreign.asked) { // the last attempt failed then
		return c.lonely.Add(deafLimit)
	}
	return c.foreign.asked.Add(deafLimit)
}

// foreignSilent asks for a sign of life when data is not answered: "the
// purpose of [...] is to find out whether the peer is alive", and only when
// there is something to send (RFC 7296, Section 2.4). A NAT on the way may have
// lost its mapping, so the question also tells where we are now.
func (c *Client) foreignSilent(now time.Time) {
	if f := c.foreign; now.Sub(f.probed) >= f.wait {
		f.probed, f.wait = now, min(max(2*f.wait, minProbe), maxProbe)
		c.tellAddress(now)
		c.ikeEvents(now, c.session)
	}
}

// foreignBare acts on a gateway that deleted the last pair of SAs and left the
// IKE SA: that alone carries nothing, so everything is made anew.
func (c *Client) foreignBare(now time.Time, s *ike.Session) {
	for _, of := range c.children {
		if of == s {
			return
		}
	}
	c.log.Info("the gateway has deleted the link; connecting anew")
	s.Delete(now)
}

// foreignStatus fills in what a gateway's link has in place of registrations.
func (c *Client) foreignStatus(s *Status) {
	f := c.foreign
	s.State = "connected"
	if f.next != 0 || f.moved {
		s.State = "moving"
	}
	s.Registrations = append(s.Registrations, f.moves...)
	if ca := c.carriers[f.current]; ca != nil {
		s.Path = &PathStatus{
			Encapsulation: string(ca.name), Local: text(ca.desc.Source), Remote: text(ca.desc.Destination),
			RTTms: ms(f.rtt), Verdict: "none", Since: f.since,
		}
	}
}

// foreignChild notes what the gateway lets through.
func (c *Client) foreignChild(child ike.Child) {
	in := c.inner.Load()
	reach := child.TSRemote
	if in.resolver.reach.Swap(&reach) == nil {
		c.log.Info("the gateway lets through", slog.Any("from", child.TSLocal), slog.Any("to", child.TSRemote))
	}
	for _, a := range in.addresses {
		if covers(child.TSLocal, a) {
			return
		}
	}
	c.log.Warn("the gateway's traffic selectors leave out the address that it gave: nothing will get through", slog.Any("inner", in.addresses), slog.Any("selectors", child.TSLocal))
}

// covers tells whether one of the selectors holds an address.
func covers(ts []ike.TrafficSelector, a netip.Addr) bool {
	for _, t := range ts {
		if t.Start.BitLen() == a.BitLen() && t.Start.Compare(a) <= 0 && a.Compare(t.End) <= 0 {
			return true
		}
	}
	return false
}

// dnsServers are the name servers that a gateway handed out, at most four.
func dnsServers(conf ike.Configuration, v4, v6 bool) []netip.Addr {
	var out []netip.Addr
	for _, at := range conf {
		a, ok := netip.AddrFromSlice(at.Value)
		fits := at.Type == ike.InternalIP4DNS && a.Is4() && v4 || at.Type == ike.InternalIP6DNS && a.Is6() && v6
		if ok && fits && !a.IsUnspecified() && len(out) < 4 {
			out = append(out, a)
		}
	}
	return out
}
