package client

import (
	"time"

	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/mobility/netwatch"
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
	at, moved := before.Follow(c.attachment())
	c.attached = at
	switch {
	case !c.connected():
		c.changedEarly(moved)
	case moved && at.Valid(): // no network: the next change will tell of one
		c.elsewhere = at.Source == before.Source || !before.Valid()
		c.register(now, mobility.TriggerAddress)
	}
}

// resumed registers anew after sleep. Mappings on the way may have expired, the
// network may be another one that looks the same.
func (c *Client) resumed(now time.Time) {
	c.attached = c.attachment()
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
	for _, remote := range c.remotes {
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
