package client

import (
	"log/slog"
	"time"

	"github.com/godwit-net/godwit/mobility"
)

// keepaliveEvery is how often a NAT's mapping is refreshed on an idle path to a gateway
// that is not godwit.
const keepaliveEvery = mobility.DefaultKeepalive

// keeper is a carrier whose path has a mapping to keep alive.
type keeper interface{ Keepalive() error }

// keepAlive begins to refresh mappings anew, by what is known of the place.
func (c *Client) keepAlive(now time.Time) {
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	c.mapping = mobility.NewKeepalive(now, seconds(c.found.Kept), seconds(c.found.Lost))
	c.keepalive = c.mapping.NextTimeout()
}

// lastSent is when something left last by the carrier in use.
func (c *Client) lastSent(now time.Time) time.Time {
	sent := now.Add(-c.link.Quiet())
	if c.refreshed.After(sent) {
		return c.refreshed
	}
	return sent
}

// sendKeepalive refreshes NAT mappings of the carrier in use when that is due.
func (c *Client) sendKeepalive(now time.Time) {
	if c.keepalive.IsZero() || now.Before(c.keepalive) {
		return
	}
	if c.registrar != nil && c.registrar.DownPath().ID != 0 {
		// No answer tells of the mapping of what leaves, and nothing that leaves keeps
		// that of what comes.
		c.keepalive = now.Add(mobility.MinKeepalive)
		c.refresh(now)
		return
	}
	if _, ok := c.keeper(c.currentID()); !ok || c.registrar == nil || c.mapping == nil {
		c.keepalive = now.Add(keepaliveEvery)
		c.refresh(now)
		return
	}
	known, lost := c.mapping.Known()
	r, pause := c.mapping.Advance(now, c.lastSent(now))
	c.keepalive = c.mapping.NextTimeout()
	switch r {
	case mobility.RefreshPlain:
		c.refresh(now)
		return
	case mobility.RefreshAsk:
		c.question++
		c.link.Ask(c.question, pause)
	case mobility.RefreshLost:
		// The server has to learn of the new mapping from something authentic.
		c.question++
		c.link.Ask(c.question, 0)
		c.log.Debug("mapping lost", slog.Duration("interval", c.mapping.Interval()))
	default:
		return
	}
	if k, l := c.mapping.Known(); k != known || l != lost {
		c.learnMapping()
	}
	if c.registrar.Standby() != 0 {
		c.keep(c.registrar.Standby())
	}
}

// questionAnswered takes the answer to a question that was asked for after a pause.
func (c *Client) questionAnswered(now time.Time, question uint32) {
	if c.mapping == nil || question != c.question || !c.mapping.Answered(now, c.lastSent(now)) {
		return
	}
	c.keepalive = c.mapping.NextTimeout()
	c.learnMapping()
}

// learnMapping keeps what was learnt of the mappings here.
func (c *Client) learnMapping() {
	kept, lost := c.mapping.Known()
	c.found.Kept, c.found.Lost = int(kept/time.Second), int(lost/time.Second)
	c.c.Places.LearnPath(c.attached, c.found)
}

// refresh sends NAT-keepalives.
func (c *Client) refresh(now time.Time) {
	c.refreshed = now
	c.keep(c.currentID())
	if c.registrar != nil && c.registrar.DownPath().ID != 0 {
		c.keep(c.registrar.DownPath().ID)
	}
	if c.registrar != nil && c.registrar.Standby() != 0 {
		c.keep(c.registrar.Standby())
	}
}

func (c *Client) keeper(id mobility.CarrierID) (keeper, bool) {
	ca := c.carriers[id]
	if ca == nil || ca.open == nil {
		return nil, false
	}
	k, ok := ca.in.tag.Load().Carrier.(keeper)
	return k, ok
}

func (c *Client) keep(id mobility.CarrierID) {
	if k, ok := c.keeper(id); ok {
		if err := k.Keepalive(); err != nil {
			c.log.Debug("keepalive not sent", slog.Any("err", err))
		}
	}
}
