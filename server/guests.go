package server

import (
	"crypto"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/tunnel"
)

const (
	ikePort = 500
	// settleTime is how long data that comes from somewhere new does not move a
	// guest again: packets that were under way on the old path arrive for a while.
	settleTime = time.Second
)

// newGuests makes the stack that takes packets of guests to any address.
func (s *Server) newGuests(inner []netip.Addr) error {
	g := s.c.Guests
	if g.Router == nil || g.Lookup == nil {
		return errors.New("guests: a router and a lookup are needed")
	}
	r := g.Router
	stack, err := tunnel.New(tunnel.Config{
		Addresses: inner, MTU: tunnel.ForeignMTU, Output: s.output, NoOffload: s.c.NoOffload, Logger: s.log,
		Forward: &tunnel.Forward{TCP: r.TCP, UDP: r.UDP, Echo: r.Echo},
	})
	if err != nil {
		return err
	}
	r.Gateways, r.SendUDP, r.SendICMP = inner, stack.SendUDP, stack.SendICMP
	s.guests = stack
	return nil
}

func (s *Server) closeGuests() {
	if s.guests != nil {
		s.guests.Close() // first: the router's connections end with it
		s.c.Guests.Router.Close()
	}
}

// listenGuests opens the sockets that guests expect.
func (s *Server) listenGuests(p *ports) error {
	for _, at := range s.c.Guests.Listen {
		if slices.Contains(s.udpPorts(p.addr), at) {
			continue
		}
		u, err := udp.Options{NoOffload: s.c.NoOffload, IKEOnly: at.Port() == ikePort}.Listen(s.c.Network, at, s)
		if err != nil {
			return fmt.Errorf("listen on UDP %s: %w", at, err)
		}
		p.add(u.Serve, u.Close)
	}
	return nil
}

// lookupGuest finds the user that a client without a raw public key claims to be.
func (s *Server) lookupGuest(id ike.Identity) (*ike.Peer, error) {
	g := s.c.Guests
	if g == nil {
		return nil, errors.New("only raw public keys are known here")
	}
	find, u, err := guestFinder(func() (*User, error) { return g.Lookup(id) })
	if err != nil {
		return nil, err
	}
	return &ike.Peer{Name: u.Name, PSK: u.PSK, Certificate: u.Certificate, Local: &g.Identity, Data: find}, nil
}

// certificate is GetCertificate as package ike wants it; nil if there is none.
func (g *Guests) certificate() func() ([][]byte, crypto.Signer) {
	if g.GetCertificate == nil {
		return nil
	}
	return func() ([][]byte, crypto.Signer) {
		c := g.GetCertificate()
		if c == nil {
			return nil, nil
		}
		key, ok := c.PrivateKey.(crypto.Signer)
		if !ok {
			return nil, nil
		}
		return c.Certificate, key
	}
}

// guestFinder makes a finder that finds a guest for as long as its secret is what it
// was, so that who came in by an old one has to leave.
func guestFinder(lookup func() (*User, error)) (finder, *User, error) {
	first, err := lookup()
	if err != nil {
		return nil, nil, err
	}
	return func() (*User, error) {
		u, err := lookup()
		if err == nil && (subtle.ConstantTimeCompare(u.PSK, first.PSK) != 1 || subtle.ConstantTimeCompare(u.NTHash, first.NTHash) != 1) {
			return nil, errors.New("the user's secret was changed")
		}
		return u, err
	}, first, nil
}

// logins is how guests come in by a password; nil if they cannot.
func (g *Guests) logins() *ike.Logins {
	if g.Login == nil || len(g.Certificates) == 0 && g.GetCertificate == nil {
		return nil
	}
	return &ike.Logins{Local: g.Identity, Lookup: func(name string) (*ike.Peer, error) {
		find, u, err := guestFinder(func() (*User, error) { return g.Login(name) })
		if err != nil {
			return nil, err
		}
		return &ike.Peer{Name: u.Name, NTHash: u.NTHash, Data: find}, nil
	}}
}

// wantsHomeAgent tells whether a configuration payload is about registrations:
// only between two godwits.
func wantsHomeAgent(c ike.Configuration) bool {
	return slices.ContainsFunc(c, func(a ike.Attribute) bool {
		return a.Type == ike.InternalHomeAgent4 || a.Type == ike.InternalHomeAgent6
	})
}

// assignGuest gives a guest the addresses of the families that it asks for.
func (s *Server) assignGuest(u *User, request ike.Configuration) (ike.Configuration, error) {
	asks := func(t ike.AttributeType) bool {
		return slices.ContainsFunc(request, func(a ike.Attribute) bool { return a.Type == t })
	}
	var reply ike.Configuration
	dns := s.c.Guests.DNS
	for _, f := range []struct {
		address, dns   ike.AttributeType
		inner, gateway netip.Addr
	}{
		{ike.InternalIP4Address, ike.InternalIP4DNS, u.Inner4, s.gateway4},
		{ike.InternalIP6Address, ike.InternalIP6DNS, u.Inner6, s.gateway6},
	} {
		if !asks(f.address) || !f.inner.IsValid() || !f.gateway.IsValid() {
			continue
		}
		reply = append(reply, ike.AddressAttribute(f.address, f.inner))
		servers := dns
		if len(dns) == 0 {
			servers = []netip.Addr{f.gateway}
		}
		for _, a := range servers {
			if a.Is4() == f.inner.Is4() {
				reply = append(reply, ike.AddressAttribute(f.dns, a))
			}
		}
	}
	if len(reply) == 0 {
		return nil, errors.New("no inner address of a family that was asked for")
	}
	return reply, nil
}

// guestEstablished takes up a guest.
func (s *Server) guestEstablished(now time.Time, p *peer, conf ike.Configuration) {
	p.binding = nil
	for _, a := range []netip.Addr{p.user.Inner4, p.user.Inner6} {
		if a.IsValid() {
			s.routes.Store(a, p)
		}
	}
	if c := s.arrival; c != nil {
		s.id(c, p)
		s.moveGuest(now, p, c, connectCredit)
	}
	s.log.Info("client connected", slog.String("user", p.user.Name), slog.Any("inner", p.user.Inner4), slog.Bool("guest", true), slog.Int("attributes", len(conf)))
}

// moveGuest sends a guest's data to where it was heard. Until it has answered
// from there, no more leaves than three times what came in (RFC 9000, Section
// 8.1).
func (s *Server) moveGuest(now time.Time, p *peer, c transports.Carrier, credit int) {
	p.moved = now
	p.link.Use(c, c.Validated(), credit)
	if !c.Validated() {
		p.session.Probe(now)
	}
}

// guestAt moves a guest that sent an authentic request from somewhere new.
func (s *Server) guestAt(p *peer, c transports.Carrier) {
	if p.session == nil || p.link.Carrier() == c || s.arrival != c {
		return
	}
	s.id(c, p)
	d := c.Describe()
	s.log.Info("client moved", slog.String("user", p.user.Name), slog.Any("transport", c.Name()), slog.Any("peer", d.Destination))
	s.moveGuest(time.Now(), p, c, connectCredit)
}

// elsewhere makes the function that is told of a guest's data from somewhere
// new; clients that register need none.
func (s *Server) elsewhere(p *peer, of *ike.Peer) func(transports.Carrier, int) {
	if of.PublicKey != nil {
		return func(c transports.Carrier, size int) { s.rebound(p, c, size) }
	}
	return func(c transports.Carrier, _ int) { s.guestHeard(p, c) }
}

// guestHeard is told of data that came from somewhere new, as when a NAT on the
// way has changed its mapping: a host behind one is where its last authentic
// packet came from (RFC 7296, Section 2.23).
func (s *Server) guestHeard(p *peer, c transports.Carrier) {
	s.owner.Offer(func(now time.Time) {
		// With MOBIKE a peer says itself where it is (RFC 4555, Section 3.8).
		if !p.guest.Load() || p.session == nil || p.session.MOBIKE() || p.link.Carrier() == c || now.Sub(p.moved) < settleTime {
			return
		}
		s.id(c, p)
		s.moveGuest(now, p, c, 0)
		s.ikeEvents(now)
	})
}

// guestAlive takes an answer of a guest to our request: it receives where the
// answer came from, if that is where the request went.
func (s *Server) guestAlive(session *ike.Session, e ike.Alive) {
	if p := s.sessions[session]; p != nil && p.guest.Load() && s.arrival != nil && (e.Probed || !session.MOBIKE()) {
		p.link.Validate(s.arrival)
	}
}
