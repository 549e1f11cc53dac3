package client

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/client/nat64"
	"github.com/godwit-net/godwit/mobility"
)

// A network may have IPv6 alone, and the server IPv4. Then a NAT64 of that network leads
// there, by an address that is made from the server's and a prefix. An address of the
// network before goes on being tried until this one's is known: most have the same
// prefix.

// nat64Wait is how long a network has had IPv6 alone when a NAT64 is looked for.
const nat64Wait = 300 * time.Millisecond

// targets are all addresses of the server, translated ones last.
func (c *Client) targets() []netip.Addr { return slices.Concat(c.remotes, c.translated) }

// lookAtNAT64 looks for a NAT64 if there is no other way to the server.
func (c *Client) lookAtNAT64() {
	remotes := c.remotes
	if len(remotes) == 0 || slices.ContainsFunc(remotes, c.reaches) {
		return
	}
	c.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, resolveTimeout)
		defer cancel()
		c.translate(ctx, remotes)
	})
}

// reaches tells whether there is a route to an address.
func (c *Client) reaches(a netip.Addr) bool {
	_, err := c.localAddress(a.Unmap())
	return err == nil
}

// translate gives the addresses that stand for IPv4 ones in this network, if it has IPv6
// alone, and tells the owner. It may be called from any goroutine.
func (c *Client) translate(ctx context.Context, remotes []netip.Addr) []netip.Addr {
	// Where there is no IPv6 either nobody could be asked.
	if !slices.ContainsFunc(remotes, func(a netip.Addr) bool { return a.Unmap().Is4() }) || !c.reaches(nat64.Probe) {
		return nil
	}
	// IPv4 may be a little behind IPv6 where a network comes up. Who asks in vain
	// tells the network's name server of it, past a kill switch.
	select {
	case <-time.After(nat64Wait):
	case <-ctx.Done():
		return nil
	}
	if slices.ContainsFunc(remotes, c.reaches) {
		return nil
	}
	prefixes, err := nat64.Discover(ctx, c.c.Resolve)
	if err != nil {
		c.log.Debug("no way to IPv4", slog.Any("err", err))
		return nil
	}
	found := nat64.Below(prefixes, remotes)
	c.owner.Post(func(now time.Time) { c.translatedAs(now, found) })
	return found
}

// translatedAs takes up the addresses that were found.
func (c *Client) translatedAs(now time.Time, found []netip.Addr) {
	if len(found) == 0 || slices.Equal(found, c.translated) {
		return
	}
	c.log.Debug("the server is reached by NAT64", slog.Any("addresses", found))
	other := len(c.translated) > 0
	c.translated = found
	if !c.connected() {
		c.lookAround()
		c.attached = c.attachment()
		if c.session != nil {
			c.openMissing()
		}
		return
	}
	before := c.attached
	c.changed(now)
	if other && c.attached == before {
		// What was begun here went to an address that leads nowhere.
		c.register(now, mobility.TriggerAddress)
		if c.registrar != nil {
			c.registrarActions(now)
		}
	}
}
