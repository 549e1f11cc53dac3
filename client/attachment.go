package client

import (
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/mobility/netwatch"
	"github.com/godwit-net/godwit/transports"
)

// watch takes the news that addresses or routes may have changed, and that the
// host has slept.
func (c *Client) watch() {
	c.listen(c.c.Changes, c.changed)
	c.listen(c.c.Resumed, c.resumed)
}

// listen posts f for whatever news brings.
func (c *Client) listen(news <-chan struct{}, f func(now time.Time)) {
	if news == nil {
		return
	}
	c.tasks.Go(func() {
		for {
			select {
			case <-c.ctx.Done():
				return
			case _, ok := <-news:
				if !ok {
					return
				}
				c.owner.Post(f)
			}
		}
	})
}

// changed registers anew if packets to the server would leave by another way
// than they do: from another address, or through another router.
func (c *Client) changed(now time.Time) {
	before := c.attached
	others := c.lookAround()
	at, moved := before.Follow(c.attachment())
	c.attached = at
	if moved {
		c.portal = nil
		c.found = c.c.Places.Path(at)
	}
	c.lookAtNAT64()
	if others && c.registrar != nil {
		c.registrar.Networks(now)
	}
	switch {
	case !c.connected():
		c.changedEarly(moved)
	case moved && at.Valid(): // no network: the next change will tell of one
		c.elsewhere = at.Source == before.Source || !before.Valid()
		c.register(now, mobility.TriggerAddress)
	}
	if c.registrar != nil {
		c.registrarActions(now)
	}
}

// lookAround asks which interfaces there are, and reports whether they changed.
func (c *Client) lookAround() bool {
	if c.c.Interfaces == nil {
		return false
	}
	before := c.networks
	c.networks = nil
	for _, remote := range c.targets() {
		if c.networks = c.c.Interfaces(remote.Unmap()); len(c.networks) > 0 {
			break
		}
	}
	return !slices.EqualFunc(before, c.networks, func(a, b netwatch.Attachment) bool {
		_, moved := a.Follow(b)
		return !moved
	})
}

// interfaces names the networks that are there.
func (c *Client) interfaces() []string {
	names := make([]string, len(c.networks))
	for i, a := range c.networks {
		names[i] = a.Interface
	}
	return names
}

// first is the interface that packets take by themselves; empty if unknown.
func (c *Client) first() string {
	if len(c.networks) == 0 {
		return ""
	}
	return c.networks[0].Interface
}

// by gives the network and the source address of sockets that are to leave by
// an interface.
func (c *Client) by(iface string) (transports.Network, netip.Addr) {
	i := slices.IndexFunc(c.networks, func(a netwatch.Attachment) bool { return a.Interface == iface })
	if iface == "" || i < 0 {
		return c.c.Network, netip.Addr{}
	}
	if c.c.Through == nil {
		return c.c.Network, c.networks[i].Source
	}
	return c.c.Through(iface), c.networks[i].Source
}

// resumed registers anew after sleep. Mappings on the way may have expired, the
// network may be another one that looks the same.
func (c *Client) resumed(now time.Time) {
	c.lookAround()
	c.attached = c.attachment()
	c.found = c.c.Places.Path(c.attached)
	c.lookAtNAT64()
	switch {
	case !c.connected():
		c.changedEarly(true)
	case c.attached.Valid():
		c.register(now, mobility.TriggerResume)
	}
}

func (c *Client) register(now time.Time, t mobility.Trigger) {
	if c.foreign != nil {
		c.moveForeign(now, t)
		return
	}
	c.registrar.Start(now, t)
}

// usable holds while packets may still leave by the carrier in use although the
// way to the server is another now.
func (c *Client) usable() bool {
	at := c.registrar.Current().Local.Addr()
	return !c.elsewhere && c.c.HasAddress != nil && at.IsValid() && c.c.HasAddress(at.Unmap())
}

// changedEarly is for a change while there is no link yet: attempts under way
// belong to the network that was.
func (c *Client) changedEarly(moved bool) {
	if c.session == nil {
		return
	}
	if moved {
		for id := range c.carriers {
			c.closeCarrier(id)
		}
	}
	c.openMissing()
}

// attachment is how packets to the server would leave now.
func (c *Client) attachment() netwatch.Attachment {
	for _, remote := range c.targets() {
		if c.c.Attachment != nil {
			if at, err := c.c.Attachment(remote.Unmap()); err == nil {
				return at
			}
		} else if local, err := c.localAddress(remote.Unmap()); err == nil {
			return netwatch.Attachment{Source: local.Unmap()}
		}
	}
	return netwatch.Attachment{}
}

// remembered gives what worked before where the host is now.
func (c *Client) remembered() []transports.Name { return c.c.Places.Order(c.attached) }

// learn keeps what a registration has found out that has ended: what was
// selected, then what answered too. A probe asks only some.
func (c *Client) learn() {
	r := c.registrar.Last()
	if !r.Done || r.Number == c.learnt || r.Selected == "" {
		return
	}
	c.learnt = r.Number
	if r.Trigger == mobility.TriggerClimb || !c.attached.Valid() || c.forced != "" || r.Down != "" {
		return // a choice among all is what tells of a place
	}
	at, moved := c.attached.Follow(c.attachment())
	if moved {
		return // what was found out is not about this place; the news is under way
	}
	c.attached = at // with the router's link address, which is known by now
	worked := []transports.Name{r.Selected}
	for _, cp := range r.Copies {
		if !cp.ReplyAt.IsZero() && cp.Encapsulation != r.Selected {
			worked = append(worked, cp.Encapsulation)
		}
	}
	c.c.Places.Learn(c.attached, worked)
	c.c.Places.LearnPath(c.attached, c.found)
}

// narrow keeps what datagrams may measure here, in bytes of IP packet.
func (c *Client) narrow(mtu int) {
	c.found.MTU = mtu
	c.c.Places.LearnPath(c.attached, c.found)
}
