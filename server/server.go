package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/ipsec/ike/message"
	"github.com/godwit-net/godwit/ipsec/knock"
	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/mobility/link"
	"github.com/godwit-net/godwit/mobility/owner"
	"github.com/godwit-net/godwit/server/egress"
	"github.com/godwit-net/godwit/server/forward"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

// A Server serves many clients. Run owns its state; the other methods may be
// called from any goroutine.
type Server struct {
	c         Config
	log       *slog.Logger
	door      *knock.Door // nil: everybody is answered
	owner     *owner.Owner
	ports     *ports
	stack     *tunnel.Stack
	guests    *tunnel.Stack // stands for all hosts outside, for clients that are not godwit; may be nil
	gateway4  netip.Addr
	gateway6  netip.Addr
	responder *ike.Responder

	forwards atomic.Pointer[forward.Service] // set by Run

	table link.Table
	// lastUnknown is when an ESP packet of no SA was last heeded, by package
	// clock.
	lastUnknown atomic.Int64
	routes      sync.Map // inner netip.Addr to *peer

	mu   sync.Mutex
	ids  map[transports.Carrier]mobility.CarrierID
	last mobility.CarrierID

	// The rest belongs to the owner's goroutine.
	arrival  transports.Carrier // of the IKE message in hand
	peers    map[string]*peer
	sessions map[*ike.Session]*peer
	children map[uint32]*ike.Session // inbound SPIs
	carriers map[mobility.CarrierID]held
	alarms   alarms
	timeline []Registration // that have ended, oldest first
	totals   totals
	reviewAt time.Time
}

// New checks c and binds the sockets; an error names the address in use.
func New(c Config) (*Server, error) {
	switch {
	case c.Network == nil || c.Lookup == nil || c.Egress == nil:
		return nil, errors.New("network, lookup and egress are needed")
	case len(c.PrivateKey) == 0:
		return nil, errors.New("a private key is needed")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.Encapsulations) == 0 {
		c.Encapsulations = []transports.Name{transports.UDP, transports.TCP, transports.WebSocket, transports.HTTP}
	}
	if c.IKELifetime == 0 {
		c.IKELifetime = 48 * time.Hour
	}
	if c.ChildLifetime == 0 {
		c.ChildLifetime = 24 * time.Hour
	}
	s := &Server{
		c: c, log: c.Logger, owner: owner.New(),
		ids:      make(map[transports.Carrier]mobility.CarrierID),
		peers:    make(map[string]*peer),
		sessions: make(map[*ike.Session]*peer),
		children: make(map[uint32]*ike.Session),
		carriers: make(map[mobility.CarrierID]held),
		totals:   totals{kinds: make(map[Kind]uint64)},
	}
	if c.Stealth {
		if c.Guests != nil {
			return nil, errors.New("stealth and guests exclude each other")
		}
		s.door = knock.NewDoor(knock.NewKey(c.PrivateKey.Public().(ed25519.PublicKey), c.WebSocketPath))
	}
	s.table.Unknown = s.unknownSPI
	inner := c.Gateways()
	for _, a := range inner {
		if a.Is4() {
			s.gateway4 = a
		} else {
			s.gateway6 = a
		}
	}
	if len(inner) == 0 {
		return nil, errors.New("an inner pool is needed")
	}
	var err error
	if s.responder, err = s.newResponder(); err != nil {
		return nil, err
	}
	if s.ports, err = s.listen(); err != nil {
		return nil, err
	}
	s.stack, err = tunnel.New(tunnel.Config{Addresses: inner, MTU: tunnel.InnerMTU, Output: s.output, NoOffload: c.NoOffload, Mended: !c.NoRecovery, Logger: s.log})
	if err == nil && c.Guests != nil {
		if err = s.newGuests(inner); err != nil {
			s.stack.Close()
		}
	}
	if err != nil {
		s.ports.close()
		return nil, err
	}
	return s, nil
}

// Addr is the address that the server listens on, with the port it got.
func (s *Server) Addr() netip.AddrPort { return s.ports.addr }

// Close ends the sockets of a server that never ran.
func (s *Server) Close() error {
	s.ports.close()
	s.stack.Close()
	s.closeGuests()
	return nil
}

// Run serves until ctx ends, which gives nil, or until a socket fails. It is
// called once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var tasks sync.WaitGroup
	for _, inner := range []netip.Addr{s.gateway4, s.gateway6} {
		if !inner.IsValid() {
			continue
		}
		ln, err := s.stack.ListenTCP(netip.AddrPortFrom(inner, SOCKSPort))
		if err != nil {
			s.Close()
			return fmt.Errorf("inner SOCKS service: %w", err)
		}
		tasks.Go(func() {
			err := egress.ServeSOCKS(ln, s.egress, s.log)
			if ctx.Err() == nil {
				cancel(fmt.Errorf("inner SOCKS service: %w", err))
			}
		})
		defer ln.Close()
		if s.c.Datagrams == nil {
			continue
		}
		pc, err := s.stack.ListenUDP(netip.AddrPortFrom(inner, SOCKSPort))
		if err != nil {
			s.Close()
			return fmt.Errorf("inner datagram service: %w", err)
		}
		tasks.Go(func() {
			if err := s.c.Datagrams.Serve(pc); ctx.Err() == nil {
				cancel(err)
			}
		})
		defer pc.Close()
	}
	stopForwards, err := s.serveForwards(func(serve func() error) {
		tasks.Go(func() {
			if err := serve(); ctx.Err() == nil {
				cancel(err)
			}
		})
	})
	if err != nil {
		s.Close()
		return fmt.Errorf("inner port service: %w", err)
	}
	for _, serve := range s.ports.serve {
		tasks.Go(func() {
			if err := serve(); ctx.Err() == nil {
				cancel(fmt.Errorf("listen on %s: %w", s.ports.addr, err))
			}
		})
	}
	s.owner.Run(ctx, s.act)
	err = context.Cause(ctx)
	stopForwards()
	s.ports.close()
	s.stack.Close()
	s.closeGuests()
	for _, p := range s.peers {
		p.link.Close()
	}
	tasks.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// act does what the state machines ask for and tells when to look again.
func (s *Server) act(now time.Time) time.Time {
	s.responder.Advance(now)
	s.ikeEvents(now)
	for p := s.alarms.take(now); p != nil; p = s.alarms.take(now) {
		if !p.orphaned.IsZero() && !now.Before(p.orphaned.Add(orphanTime)) {
			s.removePeer(p)
			continue
		}
		if p.measure != nil && !now.Before(p.measure.started.Add(measureFor)) {
			s.finish(p)
		}
		if p.binding != nil {
			p.binding.Advance(now)
			s.bindingActions(now, p)
		} else {
			s.setAlarm(p)
		}
	}
	next := earliest(s.responder.NextTimeout(), s.alarms.next())
	if len(s.peers) == 0 {
		return next
	}
	if !now.Before(s.reviewAt) {
		s.reviewAt = now.Add(reviewEvery)
		s.review(now)
	}
	return earliest(next, s.reviewAt)
}

// earliest is the earlier of two times, of which zero ones do not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// output routes a packet of the stack to the client with its destination.
func (s *Server) output(p tunnel.Packet) {
	if v, ok := s.routes.Load(p.Destination()); ok {
		v.(*peer).link.Output(p)
		return
	}
	p.Release()
}

// Receive takes what carriers bring: ESP goes to the links on the carrier's
// own goroutine, IKE to the owner.
func (s *Server) Receive(c transports.Carrier, ps []transports.Packet) {
	for i := range ps {
		if ps[i].Kind != transports.KindIKE {
			continue
		}
		if s.door != nil && !s.admits(c, ps[i].Data) {
			continue
		}
		msg := append([]byte(nil), ps[i].Data...)
		s.owner.Offer(func(now time.Time) {
			s.arrival = c
			s.responder.Receive(now, msg, c, c.Describe().Destination)
			s.ikeEvents(now)
			s.arrival = nil
		})
	}
	s.table.Receive(c, ps)
}

// admits tells whether an IKE message may be answered where strangers are not: the
// first one with a good mark, and others where such a one, or a registration, has
// come from before. So a replay from elsewhere finds nobody, though its IKE SA would
// repeat its answer.
func (s *Server) admits(c transports.Carrier, msg []byte) bool {
	h, err := message.ParseHeader(msg)
	if err != nil {
		return false
	}
	if h.Exchange != message.IKESAInit {
		a, ok := c.(transports.Admitting)
		return ok && a.Admitted()
	}
	from := c.Describe().Destination.Addr()
	label := string(c.Name()) + ", IPv6"
	if from.Is4() {
		label = string(c.Name()) + ", IPv4" // a client may come by both
	}
	if !s.door.Opens(time.Now(), msg, label, from.String()) {
		return false
	}
	admit(c)
	return true
}

// admit marks a carrier by which something came that no stranger can send.
func admit(c transports.Carrier) {
	if a, ok := c.(transports.Admitting); ok {
		a.Admit()
	}
}

// Closed forgets a carrier.
func (s *Server) Closed(c transports.Carrier, err error) {
	s.mu.Lock()
	id, known := s.ids[c]
	delete(s.ids, c)
	s.mu.Unlock()
	if !known {
		return
	}
	s.owner.Post(func(now time.Time) {
		held := s.carriers[id]
		delete(s.carriers, id)
		if held.p != nil && held.p.binding != nil {
			held.p.binding.Closed(now, id)
			s.bindingActions(now, held.p)
		}
	})
	if !errors.Is(err, net.ErrClosed) {
		s.log.Debug("carrier ended", slog.Any("transport", c.Name()), slog.Any("peer", c.Describe().Destination), slog.Any("err", err))
	}
}

// held is a carrier that a client was heard by.
type held struct {
	transports.Carrier
	p *peer
}

// id names a carrier by which p was heard: something authentic came by it. It
// runs on the owner.
func (s *Server) id(c transports.Carrier, p *peer) mobility.CarrierID {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.ids[c]
	if id == 0 {
		s.last++
		id = s.last
		s.ids[c] = id
		if t, ok := c.(transports.Trusted); ok {
			t.Trust()
		}
	}
	s.carriers[id] = held{c, p}
	return id
}
