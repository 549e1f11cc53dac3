package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/transports"
)

// openTimeout ends an attempt to open a carrier.
const openTimeout = 15 * time.Second

// resolveTimeout bounds the wait for the server's name.
const resolveTimeout = 5 * time.Second

// A carrier is one that was asked for: being opened, or open.
type carrier struct {
	id     mobility.CarrierID
	name   transports.Name
	cancel context.CancelFunc
	in     *incoming
	// replayable says that its first flight may reach the server more than once.
	replayable bool

	open transports.Carrier // nil until opened
	desc transports.Description
}

// incoming takes what a carrier receives. It is also the carrier's identity
// for the link, as packets may come in before Dial has returned.
type incoming struct {
	client *Client
	id     mobility.CarrierID
	tag    atomic.Pointer[tagged]
}

// tagged is a carrier that knows its ID.
type tagged struct {
	transports.Carrier
	id mobility.CarrierID
}

func (in *incoming) tagged(c transports.Carrier) *tagged {
	if t := in.tag.Load(); t != nil {
		return t
	}
	in.tag.CompareAndSwap(nil, &tagged{c, in.id})
	return in.tag.Load()
}

// Receive hands ESP to the link on the carrier's own goroutine, and IKE to the
// owner.
func (in *incoming) Receive(c transports.Carrier, ps []transports.Packet) {
	cl := in.client
	for i := range ps {
		if ps[i].Kind != transports.KindIKE {
			continue
		}
		cl.ikeReceived.Add(1)
		msg := append([]byte(nil), ps[i].Data...)
		cl.owner.Offer(func(now time.Time) { cl.ikeIn(now, in.id, msg) })
	}
	cl.table.Receive(in.tagged(c), ps)
}

// Closed tells the owner that the carrier is gone.
func (in *incoming) Closed(_ transports.Carrier, err error) {
	in.client.owner.Post(func(now time.Time) { in.client.carrierClosed(now, in.id, err) })
}

func (c *Client) newID() mobility.CarrierID {
	c.lastID++
	return c.lastID
}

// openCarrier starts to open a carrier of one encapsulation, by an interface if
// one is named.
func (c *Client) openCarrier(id mobility.CarrierID, name transports.Name, iface string) {
	var t transports.Transport
	for _, have := range c.c.Transports {
		if have.Name() == name {
			t = have
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, openTimeout)
	ca := &carrier{id: id, name: name, cancel: cancel, in: &incoming{client: c, id: id}}
	c.carriers[id] = ca
	remotes, translated, known := c.remotes, c.translated, c.known
	// A registration may be replayed; IKE's first message had better not be.
	ca.replayable = c.registrar != nil && c.request == nil
	network, source := c.by(iface)
	c.tasks.Go(func() {
		defer cancel()
		opened, err := c.dial(ctx, t, ca, network, source, remotes, translated, known)
		if !c.owner.Post(func(now time.Time) { c.carrierOpened(now, ca, opened, err) }) && opened != nil {
			opened.Close()
		}
	})
}

// dial opens a carrier to the first of the server's addresses that this host
// has a route to. If there are none the name is looked up; what is known from
// earlier serves where that fails. translated are the addresses that stood for the
// server's in a network with IPv6 alone.
func (c *Client) dial(ctx context.Context, t transports.Transport, ca *carrier, network transports.Network, source netip.Addr, remotes, translated, known []netip.Addr) (transports.Carrier, error) {
	if _, ok := t.(transports.Indirect); ok {
		// Where only a proxy leads out there may be neither route nor name.
		var remote netip.Addr
		if all := append(slices.Clone(remotes), known...); len(all) > 0 {
			remote = all[0].Unmap()
		}
		return t.Dial(ctx, c.opening(ctx, ca, network, netip.Addr{}, remote))
	}
	if len(remotes) == 0 {
		rctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		defer cancel()
		found, err := c.c.Resolve(rctx, c.host)
		if err != nil && len(known) > 0 {
			found, err = known, nil
		}
		if err != nil {
			return nil, fmt.Errorf("find the server's address: %w", err)
		}
		c.owner.Post(func(time.Time) { c.remotes = found })
		remotes = found
	}
	local, remote, err := c.way(source, slices.Concat(remotes, translated))
	if err != nil {
		var again error
		if local, remote, again = c.way(source, c.translate(ctx, remotes)); again != nil {
			return nil, fmt.Errorf("no route to the server: %w", err)
		}
	}
	return t.Dial(ctx, c.opening(ctx, ca, network, local, remote))
}

// errNoAddress: there is nothing to find a route to.
var errNoAddress = errors.New("no address")

// way gives the first of some addresses that this host has a route to, and the address
// to send from, which is source where that is of the same family.
func (c *Client) way(source netip.Addr, to []netip.Addr) (local, remote netip.Addr, err error) {
	err = errNoAddress
	for _, remote = range to {
		remote = remote.Unmap()
		if source.IsValid() && source.Is4() == remote.Is4() {
			return source, remote, nil
		}
		if local, err = c.localAddress(remote); err == nil {
			return local, remote, nil
		}
	}
	return local, remote, err
}

func (c *Client) opening(ctx context.Context, ca *carrier, network transports.Network, local, remote netip.Addr) transports.Opening {
	return transports.Opening{
		Network: network,
		Local:   local,
		Remote:  netip.AddrPortFrom(remote, c.port),
		Handler: ca.in,

		Replayable: ca.replayable,
		First: func(d transports.Description) []transports.Packet {
			var ps []transports.Packet
			// When ctx ends first, the owner may write ps yet; Dial ends with
			// ctx, so there is nothing to say any more.
			if c.owner.Do(ctx, func(now time.Time) { ps = c.firstFlight(now, ca, d) }) != nil {
				return nil
			}
			return ps
		},
	}
}

func (c *Client) localAddress(remote netip.Addr) (netip.Addr, error) {
	if c.c.LocalAddress == nil {
		return netip.Addr{}, nil
	}
	return c.c.LocalAddress(remote)
}

// firstFlight gives what rides in a carrier's first flight: the IKE request
// under way, or the registration.
func (c *Client) firstFlight(now time.Time, ca *carrier, d transports.Description) []transports.Packet {
	if c.carriers[ca.id] != ca {
		return nil
	}
	ca.desc = d
	ps := c.ikeFirst()
	if c.registrar != nil {
		c.registrar.Opened(now, ca.id, d)
		ps = append(ps, c.firstRegistration(now, ca.id)...)
	}
	return ps
}

func (c *Client) carrierOpened(now time.Time, ca *carrier, opened transports.Carrier, err error) {
	wanted := c.carriers[ca.id] == ca
	switch {
	case !wanted && opened != nil:
		opened.Close()
	case !wanted:
	case err != nil:
		delete(c.carriers, ca.id)
		if ca.open != nil {
			ca.open.Close()
		}
		c.log.Debug("carrier not opened", slog.Any("transport", ca.name), slog.Any("err", err))
		c.carrierLost(now, ca, err)
	default:
		ca.open = ca.in.tagged(opened)
		if ca.desc.Encapsulation == "" {
			ca.desc = opened.Describe()
		}
		if c.registrar != nil {
			c.registrar.Ready(now, ca.id)
			c.registrarActions(now)
		}
		if c.foreign != nil {
			c.foreignOpened(now, ca)
		}
	}
}

// heard makes a carrier usable that has brought something before Dial has
// returned, as a reply does that rides in the answer to the first flight.
func (c *Client) heard(id mobility.CarrierID) {
	if ca := c.carriers[id]; ca != nil && ca.open == nil {
		if t := ca.in.tag.Load(); t != nil {
			ca.open = t
		}
	}
}

// carrierLost tells the state machines that a carrier did not open, or ended.
func (c *Client) carrierLost(now time.Time, ca *carrier, err error) {
	c.lastErr = fmt.Errorf("%s: %w", ca.name, err)
	c.suspect(err)
	if c.foreign != nil {
		c.changed(now)
		c.foreignLost(now, ca.id)
		return
	}
	if c.registrar == nil {
		return
	}
	// A socket may tell of a move before the system's news of it have come.
	c.changed(now)
	if ca.open == nil {
		c.registrar.OpenFailed(now, ca.id, err)
	} else {
		c.registrar.Closed(now, ca.id, err)
	}
}

func (c *Client) carrierClosed(now time.Time, id mobility.CarrierID, err error) {
	ca := c.carriers[id]
	if ca == nil || errors.Is(err, net.ErrClosed) {
		return
	}
	delete(c.carriers, id)
	ca.cancel()
	if ca.open != nil {
		ca.open.Close()
	}
	c.log.Debug("carrier ended", slog.Any("transport", ca.name), slog.Any("err", err))
	c.carrierLost(now, ca, err)
}

// closeCarrier ends a carrier that is not needed any more.
func (c *Client) closeCarrier(id mobility.CarrierID) {
	ca := c.carriers[id]
	if ca == nil {
		return
	}
	delete(c.carriers, id)
	ca.cancel()
	if ca.open == nil {
		return
	}
	// What was sent over a stream just now shall still leave; and closing may
	// wait for the reader, which may be waiting for the owner.
	open := ca.open
	c.tasks.Go(func() { open.Close() })
}

// send puts one urgent packet on a carrier; a carrier that cannot take it is
// as good as a network that lost it.
func (c *Client) send(id mobility.CarrierID, kind transports.Kind, data []byte) {
	ca := c.carriers[id]
	if ca == nil || ca.open == nil {
		return
	}
	if id == c.currentID() {
		c.refreshed = time.Now()
	}
	if err := ca.open.Send([]transports.Packet{{Kind: kind, Urgent: true, Data: data}}); err != nil {
		c.log.Debug("not sent", slog.Any("transport", ca.name), slog.Any("err", err))
	}
}

// sendFailed tells the owner that the carrier in use refuses data.
func (c *Client) sendFailed(by transports.Carrier, err error) {
	t, ok := by.(*tagged)
	if !ok {
		return
	}
	c.owner.Post(func(now time.Time) { c.carrierClosed(now, t.id, err) })
}
