package server

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/mobility/link"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

// orphanTime is how long a client without an IKE SA is remembered, so that its
// connections live on when it comes back.
const orphanTime = 5 * time.Minute

// connectCredit is how many bytes a new client may be sent before its address
// is proven: IKE_SA_INIT and IKE_AUTH brought more than a third of it.
const connectCredit = 1500

// A peer is one client. It lives through its IKE SAs.
type peer struct {
	user     *User
	find     finder
	guest    atomic.Bool // not godwit: there is no binding
	moved    time.Time   // when a guest's packets last came from somewhere new
	link     *link.Link
	binding  *mobility.Binding
	session  *ike.Session
	orphaned time.Time // since when there is no IKE SA; zero: there is one
	due      time.Time // of the valid alarm; zero: none is set
	verdict  mobility.Verdict
	by       transports.Carrier // that the copy in hand came by
	credit   int                // bytes that it allows to be sent there
	reserved int                // bytes that its reply may have besides
	request  *regmsg.Request
	replayed uint64 // identification of the registration whose flight was replayed
	spoofed  atomic.Uint64
	measure  *measure // of the registration that runs; nil: none does
	measured measure  // the last that began
}

func (s *Server) newResponder() (*ike.Responder, error) {
	public := s.c.PrivateKey.Public().(ed25519.PublicKey)
	id, err := ike.KeyIdentity(public)
	if err != nil {
		return nil, fmt.Errorf("own key: %w", err)
	}
	rc := ike.ResponderConfig{
		Config: ike.Config{
			Logger:     s.log,
			Local:      id,
			PrivateKey: s.c.PrivateKey,
			NewSPI:     s.table.NewSPI,
			KeyLog:     s.c.KeyLog,

			PostQuantum: s.c.PostQuantum,

			MOBIKE: s.c.Guests != nil,

			IKELifetime:   s.c.IKELifetime,
			ChildLifetime: s.c.ChildLifetime,
		},
		TokenSecret: tokenSecret(s.c.PrivateKey),

		Lookup: s.lookup,
		Assign: s.assign,
	}
	if s.c.Enrol != nil {
		rc.Enrol = s.enrol
	}
	if g := s.c.Guests; g != nil {
		rc.Certificates, rc.CertificateKey, rc.Roots = g.Certificates, g.CertificateKey, g.Roots
		rc.GetCertificate, rc.Logins = g.certificate(), g.logins()
	}
	return ike.NewResponder(rc)
}

// A finder finds a peer's user again, who may have been removed meanwhile.
type finder func() (*User, error)

// lookup finds the user whose raw public key was shown, or the guest that
// claims an identity.
func (s *Server) lookup(id ike.Identity, key ed25519.PublicKey) (*ike.Peer, error) {
	if key == nil {
		return s.lookupGuest(id)
	}
	find := finder(func() (*User, error) { return s.c.Lookup(key) })
	u, err := find()
	if err != nil {
		return nil, err
	}
	return &ike.Peer{Name: u.Name, PublicKey: key, Data: find}, nil
}

// enrol lets a key in that lookup did not know, if proof says so.
func (s *Server) enrol(key ed25519.PublicKey, proof []byte) (*ike.Peer, error) {
	u, err := s.c.Enrol(key, proof)
	if err != nil {
		return nil, err
	}
	s.log.Info("client enrolled", slog.String("user", u.Name))
	return &ike.Peer{Name: u.Name, PublicKey: key, Data: finder(func() (*User, error) { return s.c.Lookup(key) })}, nil
}

// assign gives a user its inner addresses and names the server's own.
func (s *Server) assign(p *ike.Peer, request ike.Configuration) (ike.Configuration, error) {
	u, err := p.Data.(finder)()
	if err != nil {
		return nil, err
	}
	if !wantsHomeAgent(request) && p.PublicKey == nil {
		return s.assignGuest(u, request)
	}
	var reply ike.Configuration
	if u.Inner4.IsValid() && s.gateway4.IsValid() {
		reply = append(reply,
			ike.AddressAttribute(ike.InternalIP4Address, u.Inner4),
			ike.AddressAttribute(ike.InternalHomeAgent4, s.gateway4))
	}
	if u.Inner6.IsValid() && s.gateway6.IsValid() {
		reply = append(reply,
			ike.AddressAttribute(ike.InternalIP6Address, u.Inner6),
			ike.AddressAttribute(ike.InternalHomeAgent6, s.gateway6))
	}
	if len(reply) == 0 {
		return nil, errors.New("the user has no inner address")
	}
	for _, dns := range s.c.DNS {
		t := ike.InternalIP4DNS
		if dns.Is6() {
			t = ike.InternalIP6DNS
		}
		reply = append(reply, ike.AddressAttribute(t, dns))
	}
	return reply, nil
}

// ikeEvents does what the responder asks for.
func (s *Server) ikeEvents(now time.Time) {
	for _, e := range s.responder.Events() {
		switch ev := e.Event.(type) {
		case ike.Send:
			s.sendIKE(e.Session, ev)
		case ike.Established:
			s.established(now, e.Session, ev)
		case ike.ChildCreated:
			s.childCreated(e.Session, ev.Child)
		case ike.ChildDeleted:
			s.childDeleted(ev.InboundSPI)
		case ike.Alive:
			s.guestAlive(e.Session, ev)
		case ike.Moved:
			if p := s.sessions[e.Session]; p != nil && p.guest.Load() && s.arrival != nil {
				s.guestAt(p, s.arrival)
			}
		case ike.Closed:
			s.sessionClosed(now, e.Session, ev.Err)
		}
	}
}

// sendIKE answers a request on the carrier that it came by, and sends our own
// requests by the carrier in use.
func (s *Server) sendIKE(of *ike.Session, e ike.Send) {
	c, ok := e.Path.(transports.Carrier)
	p := s.sessions[of]
	if ok && !e.Retransmission && p != nil && p.guest.Load() && !of.MOBIKE() {
		// A new authentic request: the peer is where it came from (RFC 7296,
		// Section 2.23). With MOBIKE it says so itself.
		s.guestAt(p, c)
	}
	if ok && p != nil {
		c = p.link.WayBack(c)
	}
	if !ok {
		if p == nil {
			return
		}
		if c = p.link.Carrier(); c == nil {
			return
		}
	}
	if err := c.Send([]transports.Packet{{Kind: transports.KindIKE, Urgent: true, Data: e.Message}}); err != nil {
		s.log.Debug("IKE message not sent", slog.Any("peer", c.Describe().Destination), slog.Any("err", err))
	}
}

// established takes up a client, or gives one that is known its new IKE SA.
func (s *Server) established(now time.Time, session *ike.Session, e ike.Established) {
	if s.c.Joined != nil {
		s.c.Joined(e.Peer.Name)
	}
	find := e.Peer.Data.(finder)
	u, err := find()
	if err != nil { // removed in this very moment
		session.Delete(now)
		return
	}
	p := s.peers[u.Name]
	if p == nil {
		p = &peer{user: u}
		p.link = link.New(link.Config{
			Logger:       s.log,
			Table:        &s.table,
			Deliver:      func(pkts [][]byte, way tunnel.Way) { s.deliver(p, pkts, way) },
			Registration: func(ip []byte, c transports.Carrier, size int) { s.registrationIn(p, ip, c, size) },
			Elsewhere:    s.elsewhere(p, e.Peer),
			MTU:          tunnel.InnerMTU,
			Recover:      !s.c.NoRecovery,
			Discover:     true,
			Duplicate:    s.c.Duplicate,
			FlightBytes:  s.c.ReplayBytes,
		})
		s.peers[u.Name] = p
	}
	if p.session != nil {
		s.dropChildren(p.session)
		delete(s.sessions, p.session)
	}
	p.user, p.find, p.session, p.orphaned = u, find, session, time.Time{}
	p.measured = measure{} // its registrations are counted anew
	s.totals.connections++
	p.guest.Store(!wantsHomeAgent(e.Configuration))
	p.link.Recover(!s.c.NoRecovery && !p.guest.Load())
	p.link.Discover(!p.guest.Load())
	s.sessions[session] = p
	if p.guest.Load() {
		s.guestEstablished(now, p, e.Configuration)
		return
	}
	home, agent := s.home(u)
	p.binding = mobility.NewBinding(mobility.BindingConfig{
		HomeAddress: home,
		HomeAgent:   agent,
		Preference:  s.c.Encapsulations,
		Offers:      s.offers,
		Reach: func(n transports.Name, local netip.Addr, to netip.AddrPort) (mobility.CarrierID, transports.Description, bool) {
			return s.reach(p, n, local, to)
		},
		ReceiveState: p.link.ReceiveState,
		Logger:       s.log,
	})
	for _, a := range []netip.Addr{u.Inner4, u.Inner6} {
		if a.IsValid() {
			s.routes.Store(a, p)
		}
	}
	if c := s.arrival; c != nil {
		// IKE_AUTH proves that the client received our IKE_SA_INIT response,
		// but not where: that may have been another address. The registration
		// that follows proves this one.
		p.by, p.credit = c, connectCredit
		p.binding.Adopt(now, s.id(c, p), c.Describe().Reverse(), c.Validated())
		s.bindingActions(now, p)
	}
	s.log.Info("client connected", slog.String("user", u.Name), slog.Any("inner", home))
}

// home gives the inner addresses that a user's registrations are about: its own
// and the server's, IPv4 if there are both.
func (s *Server) home(u *User) (home, agent netip.Addr) {
	if u.Inner4.IsValid() && s.gateway4.IsValid() {
		return u.Inner4, s.gateway4
	}
	return u.Inner6, s.gateway6
}

func (s *Server) childCreated(session *ike.Session, child ike.Child) {
	p := s.sessions[session]
	if p == nil {
		return
	}
	if err := p.link.Install(child); err != nil {
		s.log.Error("keys not installed", slog.String("user", p.user.Name), slog.Any("err", err))
		return
	}
	s.children[child.InboundSPI] = session
}

func (s *Server) childDeleted(spi uint32) {
	session := s.children[spi]
	delete(s.children, spi)
	if p := s.sessions[session]; p != nil {
		p.link.Remove(spi)
	}
}

// dropChildren removes the SAs of a session that is gone.
func (s *Server) dropChildren(session *ike.Session) {
	for spi, of := range s.children {
		if of == session {
			s.childDeleted(spi)
		}
	}
}

func (s *Server) sessionClosed(now time.Time, session *ike.Session, err error) {
	p := s.sessions[session]
	if p == nil {
		if err != nil {
			s.log.Debug("IKE SA not made", slog.Any("err", err))
		}
		return
	}
	s.dropChildren(session)
	delete(s.sessions, session)
	if p.session != session {
		return
	}
	p.session, p.orphaned = nil, now
	s.release(p.user.Name, false)
	s.setAlarm(p)
	p.link.Use(nil, false, 0)
	s.log.Info("client gone", slog.String("user", p.user.Name), slog.Any("err", err))
}

// reviewEvery is how soon a client that was removed loses its link.
const reviewEvery = 10 * time.Second

// review ends the links of clients that may not come in any more.
func (s *Server) review(now time.Time) {
	for _, p := range s.peers {
		if u, err := p.find(); err == nil && u.Name == p.user.Name {
			continue
		}
		s.log.Info("client removed", slog.String("user", p.user.Name))
		if session := p.session; session != nil {
			session.Delete(now)
			s.ikeEvents(now) // the word has to leave before the carrier is forgotten
			s.dropChildren(session)
			delete(s.sessions, session)
		}
		s.removePeer(p)
	}
}

// removePeer forgets a client that did not come back.
func (s *Server) removePeer(p *peer) {
	if s.peers[p.user.Name] == p {
		delete(s.peers, p.user.Name)
	}
	for _, a := range []netip.Addr{p.user.Inner4, p.user.Inner6} {
		s.routes.CompareAndDelete(a, p)
	}
	// Its pump may sit in a stream that nobody reads.
	for id, h := range s.carriers {
		if h.p == p {
			delete(s.carriers, id)
			h.Close()
		}
	}
	s.release(p.user.Name, true)
	p.link.Close()
	if p.measure != nil {
		s.finish(p)
	}
	s.totals.gone.add(p)
}

// deliver gives a client's packets to the stack. "The packet's source address
// must match the SA's selectors" (RFC 4301, Section 5.2): what a client sends
// has its own inner address, or it is dropped.
func (s *Server) deliver(p *peer, pkts [][]byte, way tunnel.Way) {
	ok := pkts[:0]
	for _, ip := range pkts {
		if v, found := s.routes.Load(source(ip)); found && v == p {
			ok = append(ok, ip)
		} else {
			p.spoofed.Add(1)
		}
	}
	if p.guest.Load() {
		s.guests.Input(ok)
		return
	}
	if s.c.NoRecovery {
		s.stack.Input(ok)
		return
	}
	s.stack.InputInOrder(ok, way)
}

func source(ip []byte) netip.Addr {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(ip[12:16]))
	case len(ip) >= 40 && ip[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(ip[8:24]))
	}
	return netip.Addr{}
}
