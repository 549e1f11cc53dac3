package client

import (
	"log/slog"
	"time"

	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// registrationIn takes an inner packet to port 434, on the carrier's goroutine.
func (c *Client) registrationIn(ip []byte, by transports.Carrier) {
	t, ok := by.(*tagged)
	if !ok {
		return
	}
	_, _, m, err := regmsg.ParsePacket(ip)
	reply, isReply := m.(*regmsg.Reply)
	if err != nil || !isReply {
		c.log.Debug("registration reply not understood", slog.Any("err", err))
		return
	}
	c.owner.Offer(func(now time.Time) {
		c.heard(t.id)
		if c.registrar == nil {
			return
		}
		if err := c.registrar.Receive(now, reply, t.id); err != nil {
			c.log.Debug("registration reply not used", slog.Any("err", err))
			return
		}
		c.portal = nil
		c.reply = reply
		c.registrarActions(now)
		c.reply = nil
	})
}

// registrarActions does what the registrar asks for.
func (c *Client) registrarActions(now time.Time) {
	c.observe(now) // before anything is sent again
	for _, a := range c.registrar.Actions() {
		c.registrarAction(a)
	}
}

func (c *Client) registrarAction(a mobility.Action) {
	switch a := a.(type) {
	case mobility.Open:
		c.openCarrier(a.ID, a.Name, a.Interface)
	case mobility.Send:
		if b := c.sealRegistration(a); b != nil {
			c.send(a.ID, transports.KindESP, b)
		}
	case mobility.Use:
		c.use(a)
	case mobility.Close:
		c.closeCarrier(a.ID)
	}
}

// firstRegistration does what the registrar asks for and returns what is to be
// sent on the carrier being opened instead of sending it.
func (c *Client) firstRegistration(now time.Time, id mobility.CarrierID) (ps []transports.Packet) {
	for _, a := range c.registrar.Actions() {
		if s, ok := a.(mobility.Send); ok && s.ID == id {
			if b := c.sealRegistration(s); b != nil {
				ps = append(ps, transports.Packet{Kind: transports.KindESP, Urgent: true, Data: b})
			}
			continue
		}
		c.registrarAction(a)
	}
	return ps
}

func (c *Client) sealRegistration(s mobility.Send) []byte {
	in := c.inner.Load()
	ip, err := regmsg.AppendPacket(nil, in.addresses[0], in.gateway, s.Message)
	if err == nil {
		var b []byte
		if b, err = c.link.Seal(ip, s.PadTo); err == nil {
			return b
		}
	}
	c.log.Error("registration not sent", slog.Any("err", err))
	return nil
}

// use moves the data to another carrier.
func (c *Client) use(a mobility.Use) {
	ca := c.carriers[a.ID]
	if ca == nil || ca.open == nil {
		return
	}
	c.leaves(ca, a.Verdict)
	if a.Provisional {
		c.link.UseProvisionally(ca.open, a.Since)
		c.inner.Load().stack.Resume()
		return
	}
	c.link.ExpectMTU(c.found.MTU)
	// This end asked for the path and an answer came by it: nobody else can be
	// hurt by what is sent there.
	c.link.Use(ca.open, true, 0)
	if down := c.carriers[a.From]; down != nil && down.open != nil {
		c.link.HearBy(ca.open, down.open)
	} else {
		c.link.HearBy(ca.open, nil)
	}
	if p := c.registrar.Current(); p.RTT > 0 {
		c.link.SetRoundTrip(p.RTT)
	}
	if c.reply != nil && c.replayed != c.reply.Number {
		c.replayed = c.reply.Number
		// The reply's state is that of when the request got there.
		c.replay(c.reply, time.Now().Add(-a.RTT))
	}
	// A request that the old path swallowed need not wait for its timer.
	if c.session != nil {
		c.session.Retransmit(time.Now())
	}
	c.keepAlive(time.Now())
	c.log.Debug("path in use", slog.Any("transport", ca.name), slog.Any("verdict", a.Verdict),
		slog.Any("local", ca.desc.Source), slog.Duration("rtt", a.RTT))
}

// replay sends again what the server has not received, if a path was lost:
// elsewhere what is under way arrives.
func (c *Client) replay(r *regmsg.Reply, asked time.Time) {
	if l := c.registrar.Last(); l.Number == 0 || !l.Trigger.Loses() || l.Overlap {
		return
	}
	c.inner.Load().stack.Resume()
	c.link.Replay(r.Received, asked)
}

// silent is called when data has been unanswered for too long.
func (c *Client) silent(now time.Time) {
	switch {
	case c.registrar != nil:
		c.log.Debug("data unanswered")
		c.registrar.Start(now, mobility.TriggerSilence)
	case c.foreign != nil:
		c.foreignSilent(now)
	}
}

// watchLoneliness tries a new IKE SA when registrations stay unanswered: a
// server that lost its state knows no SA of ours. If an answer comes after
// all, the attempt is dropped.
func (c *Client) watchLoneliness(now time.Time) {
	switch {
	case !c.registrar.Registering():
		c.lonely = time.Time{}
		if c.next != nil {
			c.dropNext()
		}
	case c.lonely.IsZero():
		c.lonely = now
	case c.next == nil && now.Sub(c.lonely) >= lonelyLimit:
		s, err := c.newSession(now)
		if err != nil {
			c.log.Error("no new IKE SA", slog.Any("err", err))
			c.lonely = now
			return
		}
		c.next = s
		c.ikeEvents(now, s)
	}
}
