package server

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// registrationIn takes an inner packet to port 434, on the carrier's goroutine.
func (s *Server) registrationIn(p *peer, ip []byte, c transports.Carrier, size int) {
	_, _, m, err := regmsg.ParsePacket(ip)
	request, ok := m.(*regmsg.Request)
	if err != nil || !ok {
		s.log.Debug("registration not understood", slog.Any("err", err))
		return
	}
	admit(c)
	s.owner.Offer(func(now time.Time) {
		if p.session == nil || p.binding == nil {
			return
		}
		p.by, p.credit, p.reserved = c, 2*size, size
		err := p.binding.Receive(now, request, mobility.Arrival{
			Carrier:   s.id(c, p),
			Seen:      c.Describe().Reverse(),
			Bytes:     size,
			Validated: c.Validated(),
		})
		if err != nil {
			s.totals.unused++
			s.log.Debug("registration not used", slog.String("user", p.user.Name), slog.Any("err", err))
		} else {
			s.observe(now, p, request)
		}
		p.request = request
		s.bindingActions(now, p)
		p.request, p.reserved = nil, 0
	})
}

// rebound is told that a client's newest packet came by a carrier that no
// registration spoke of: a NAT on the way has changed its mapping.
func (s *Server) rebound(p *peer, c transports.Carrier, size int) {
	s.mu.Lock()
	admit(c)
	known := s.ids[c] != 0
	s.mu.Unlock()
	used := p.link.Carrier()
	// Streams cannot be rebound; a new one begins with a registration.
	if known || used == nil || used == c || used.Name() != c.Name() || c.Validated() {
		return
	}
	s.owner.Offer(func(now time.Time) {
		if p.session == nil || p.binding == nil {
			return
		}
		p.by, p.credit = c, 3*size
		err := p.binding.Rebound(now, mobility.Arrival{Carrier: s.id(c, p), Seen: c.Describe().Reverse(), Bytes: size})
		if err != nil {
			s.log.Debug("change of mapping not followed", slog.String("user", p.user.Name), slog.Any("err", err))
		} else {
			s.totals.rebound++
		}
		s.bindingActions(now, p)
	})
}

// setAlarm has p looked at again when it wants to be.
func (s *Server) setAlarm(p *peer) {
	var t time.Time
	if p.binding != nil {
		t = p.binding.NextTimeout()
	}
	if !p.orphaned.IsZero() {
		t = earliest(t, p.orphaned.Add(orphanTime))
	}
	if p.measure != nil {
		t = earliest(t, p.measure.started.Add(measureFor))
	}
	s.alarms.set(p, t)
}

// bindingActions does what a client's binding asks for.
func (s *Server) bindingActions(now time.Time, p *peer) {
	for _, a := range p.binding.Actions() {
		switch a := a.(type) {
		case mobility.Send:
			s.sendReply(p, a)
		case mobility.Use:
			c := s.carriers[a.ID].Carrier
			if c == nil {
				continue
			}
			p.verdict = a.Verdict
			if before := p.link.Carrier(); before != nil && before != c {
				d := c.Describe()
				s.log.Info("client moved", slog.String("user", p.user.Name),
					slog.String("from", fmt.Sprintf("%s at %s", before.Name(), before.Describe().Destination)),
					slog.String("to", fmt.Sprintf("%s at %s", c.Name(), d.Destination)), slog.Any("verdict", a.Verdict))
			}
			// The copy that brought this allows three times its size, and one of
			// them is kept for its reply.
			credit := p.credit
			if c != p.by {
				credit = 0
			}
			p.link.Use(c, a.Validated, credit)
			p.link.HearBy(c, s.carriers[a.From].Carrier)
			if also := s.carriers[a.Also].Carrier; also != nil {
				p.link.AlsoUse(c, also, a.AlsoFor)
			}
			// Once for each registration, and when the client had to decide;
			// after a climb, what is under way on the old path arrives.
			if r := p.request; r != nil && !r.Probe && (p.replayed != r.Identification || r.Decision != 0) {
				p.replayed = r.Identification
				s.stack.Resume()
				p.link.Replay(r.Received, time.Time{})
			}
		case mobility.Validate:
			if c := s.carriers[a.ID].Carrier; c != nil {
				p.link.Validate(c)
			}
		case mobility.Close:
			if held := s.carriers[a.ID]; held.Carrier != nil && held.p == p { // else another client is there by now
				c := held.Carrier
				delete(s.carriers, a.ID)
				s.mu.Lock()
				delete(s.ids, c)
				s.mu.Unlock()
				c.Close()
			}
		}
	}
	s.setAlarm(p)
}

func (s *Server) sendReply(p *peer, a mobility.Send) {
	c := s.carriers[a.ID].Carrier
	if c == nil {
		return
	}
	home, agent := s.home(p.user)
	ip, err := regmsg.AppendPacket(nil, agent, home, a.Message)
	if err == nil {
		var b []byte
		if b, err = p.link.Seal(ip, a.PadTo); err == nil {
			err = c.Send([]transports.Packet{{Kind: transports.KindESP, Urgent: true, Data: b}})
			if more := len(b) - p.reserved; more > 0 {
				p.link.Charge(c, more)
				p.credit -= more
			}
			p.reserved = max(p.reserved-len(b), 0)
			if r, ok := a.Message.(*regmsg.Reply); ok && r.OneWay && a.PadTo > 0 && p.by != nil && p.by != c {
				p.link.Charge(p.by, len(b)) // what came by that allows it
			}
		}
	}
	if err != nil {
		s.log.Debug("registration reply not sent", slog.String("user", p.user.Name), slog.Any("err", err))
	}
}

// reach gives a carrier by which p has not been heard, to where it may hear.
func (s *Server) reach(p *peer, n transports.Name, local netip.Addr, to netip.AddrPort) (mobility.CarrierID, transports.Description, bool) {
	u := s.ports.udp[udpPort(s.ports.addr, n)]
	if u == nil || !slices.Contains(s.c.Encapsulations, n) {
		return 0, transports.Description{}, false
	}
	c, ok := u.Reach(local, to)
	if !ok {
		return 0, transports.Description{}, false
	}
	return s.id(c, p), c.Describe(), true
}

// offers lists what the server takes. Where is left open: the address that the
// client used works, and all encapsulations share the port.
func (s *Server) offers() []regmsg.Offer {
	offers := make([]regmsg.Offer, len(s.c.Encapsulations))
	for i, n := range s.c.Encapsulations {
		offers[i] = regmsg.Offer{Encapsulation: n}
	}
	return offers
}
