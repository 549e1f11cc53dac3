package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/client/warm"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/mobility/link"
	"github.com/godwit-net/godwit/mobility/netwatch"
	"github.com/godwit-net/godwit/mobility/owner"
	"github.com/godwit-net/godwit/mobility/places"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel"
)

// socksPort is the port of the SOCKS5 service on the server's inner address.
const socksPort = 1080

// ErrNoEncapsulation is matched when an encapsulation is named that the client does
// not have.
var ErrNoEncapsulation = errors.New("no such encapsulation here")

// A Client keeps one link to a server. Run owns its state; the other methods
// may be called from any goroutine.
type Client struct {
	c     Config
	log   *slog.Logger
	host  string // of c.Server
	port  uint16
	owner *owner.Owner
	ctx   context.Context // Run's
	tasks sync.WaitGroup  // goroutines of Run

	table   link.Table
	link    *link.Link
	inner   atomic.Pointer[inner]
	ready   chan struct{} // closed when inner is set for the first time
	pool    *warm.Pool    // connections to the service inside the tunnel
	reached reached
	early   atomic.Value // the EarlyData in force

	ikeSent, ikeReceived atomic.Uint64

	// The rest belongs to the owner's goroutine.
	carriers  map[mobility.CarrierID]*carrier
	lastID    mobility.CarrierID
	session   *ike.Session       // being made, or the one in use
	arrived   mobility.CarrierID // that the IKE message in hand came by; 0 for none
	request   [][]byte           // the IKE request under way while connecting, in fragments if it is long
	answered  mobility.CarrierID
	next      *ike.Session            // made beside a session that seems lost
	held      []heldMessage           // for next
	heldUntil time.Time               // zero: nothing was held yet
	children  map[uint32]*ike.Session // inbound SPIs
	registrar *mobility.Registrar
	foreign   *foreign              // in place of registrar, for a gateway that is not godwit
	reply     *regmsg.Reply         // in hand
	replayed  uint32                // the registration for which the flight was replayed
	retryAt   time.Time             // of the next attempt to connect
	childless bool                  // the gateway wants no Child SA in IKE_AUTH
	lonely    time.Time             // since when registrations have had no answer
	attached  netwatch.Attachment   // what attachment gave when it was last asked
	networks  []netwatch.Attachment // what Interfaces gave
	where     string                // data leaves from: encapsulation and local address
	timeline  []measure             // of the last registrations, oldest first
	found     places.Path           // what was found out about datagrams at attached
	learnt    uint32                // the registration that Places has learnt from
	elsewhere bool                  // the address of before, if it is there, may lead to another network now
	mapping   *mobility.Keepalive   // how long a NAT keeps the mapping of the path in use
	question  uint32                // the last that was asked of the server for that
	refreshed time.Time             // when a plain NAT keepalive left last
	keepalive time.Time             // when a NAT keepalive is due
	remotes   []netip.Addr
	// translated stand for IPv4 addresses of remotes in a network that has IPv6 alone.
	translated []netip.Addr
	known      []netip.Addr // remotes of the last attempt, for when the name cannot be looked up
	lastErr    error
	forced     transports.Name // by Force; empty: none
	portal     *portal         // somebody else answered in the server's place; nil: nobody did
	fatal      error
	wasReady   bool
}

// inner is the inside of an established link.
type inner struct {
	stack     *tunnel.Stack
	addresses []netip.Addr
	gateway   netip.Addr // where the SOCKS5 service is; not valid for a gateway that is not godwit
	resolver  *resolver  // for one that is not godwit
}

// New checks c and makes a client; it opens no socket.
func New(c Config) (*Client, error) {
	host, portText, err := net.SplitHostPort(c.Server)
	if err != nil {
		return nil, fmt.Errorf("server address %q: %w", c.Server, err)
	}
	port, err := net.LookupPort("tcp", portText)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("server address %q: the port must be a number from 1 to 65535", c.Server)
	}
	switch {
	case c.Network == nil:
		return nil, errors.New("no network given")
	case len(c.Transports) == 0:
		return nil, errors.New("no encapsulation given: at least one is needed")
	case c.Gateway == nil && (len(c.ServerKey) == 0 || len(c.PrivateKey) == 0):
		return nil, errors.New("the server's public key and an own private key are needed")
	}
	if c.Gateway != nil {
		if err := c.Gateway.check(); err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Places == nil {
		c.Places = places.Open("", c.Logger)
	}
	if c.EarlyData == "" {
		c.EarlyData = EarlyKnown
	}
	if err := c.EarlyData.check(); err != nil {
		return nil, err
	}
	if c.Spare == 0 {
		c.Spare = warm.DefaultSpare
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	cl := &Client{
		c: c, log: c.Logger, host: host, port: uint16(port),
		owner:    owner.New(),
		ready:    make(chan struct{}),
		carriers: make(map[mobility.CarrierID]*carrier),
		children: make(map[uint32]*ike.Session),
	}
	cl.early.Store(c.EarlyData)
	cl.pool = warm.New(c.Spare, cl.dialService)
	if a, err := netip.ParseAddr(host); err == nil {
		cl.remotes = []netip.Addr{a}
	}
	return cl, nil
}

// Run keeps the link until ctx ends, which gives nil, or until the server
// refuses for good, which gives the reason. It is called once.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.ctx = ctx
	c.link = link.New(link.Config{
		Logger:  c.log,
		Table:   &c.table,
		Deliver: c.deliver,
		Registration: func(ip []byte, by transports.Carrier, _ int) {
			c.registrationIn(ip, by)
		},
		Silence:    func() { c.owner.Post(c.silent) },
		SendFailed: c.sendFailed,
		MTU:        tunnel.InnerMTU,
		Recover:    !c.c.NoRecovery,
		Discover:   true,
		Answer:     func(n uint32) { c.owner.Post(func(now time.Time) { c.questionAnswered(now, n) }) },
		PathMTU:    func(mtu int) { c.owner.Post(func(time.Time) { c.narrow(mtu) }) },
		Duplicate:  c.c.Duplicate,

		FlightBytes: c.c.ReplayBytes,
	})
	c.watch()
	c.owner.Post(c.connect)
	c.owner.Run(ctx, func(now time.Time) time.Time {
		next := c.act(now)
		if c.fatal != nil {
			cancel()
		}
		return next
	})
	c.close(cancel)
	return c.fatal
}

// close ends everything that Run started.
func (c *Client) close(cancel context.CancelFunc) {
	if c.session != nil && c.connected() {
		// "A node MAY delete its SAs when it goes": the server need not keep
		// what nobody will use.
		c.session.Delete(time.Now())
		c.flushIKE(c.session)
	}
	cancel()
	for id := range c.carriers {
		c.closeCarrier(id)
	}
	c.pool.Close()
	if in := c.inner.Load(); in != nil {
		in.stack.Close()
	}
	c.link.Close()
	c.tasks.Wait()
}

// Ready is closed when the link is up for the first time.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Move asks for a registration over everything, as if the network had changed.
func (c *Client) Move() {
	c.owner.Post(func(now time.Time) {
		switch {
		case c.registrar != nil:
			c.registrar.Start(now, mobility.TriggerAsked)
		case c.foreign != nil:
			c.moveForeign(now, mobility.TriggerAsked)
		}
	})
}

// Force keeps the link to one encapsulation, such as tcp, until it is called again
// or Run ends; an empty name lets go. Data goes on where it is until an answer has
// come by the one that is forced, for some seconds at most; when none comes, streams
// wait. Status tells which one is forced. The error matches ErrNoEncapsulation for one
// that is not among the Transports of the Config.
func (c *Client) Force(encapsulation string) error {
	name := transports.Name(encapsulation)
	switch {
	case name == "":
	case !slices.ContainsFunc(c.c.Transports, func(t transports.Transport) bool { return t.Name() == name }):
		return fmt.Errorf("force %s: %w", name, ErrNoEncapsulation)
	case c.c.Gateway != nil && name != c.c.Transports[0].Name():
		return fmt.Errorf("force %s: with a gateway that is not godwit only %s is used: %w", name, c.c.Transports[0].Name(), ErrNoEncapsulation)
	}
	c.owner.Post(func(now time.Time) { c.force(now, name) })
	return nil
}

// force runs on the owner.
func (c *Client) force(now time.Time, name transports.Name) {
	if c.forced == name {
		return
	}
	c.forced = name
	if c.registrar != nil {
		c.registrar.Force(now, name)
		return
	}
	if c.foreign != nil {
		return // it has one alone
	}
	for id, ca := range c.carriers {
		if !c.allowed(ca.name) {
			c.closeCarrier(id)
		}
	}
	c.openMissing()
}

// allowed holds for the encapsulations that force leaves.
func (c *Client) allowed(name transports.Name) bool { return c.forced == "" || name == c.forced }

func (c *Client) deliver(pkts [][]byte, way tunnel.Way) {
	in := c.inner.Load()
	switch {
	case in == nil:
	case c.c.NoRecovery || in.resolver != nil:
		in.stack.Input(pkts)
	default:
		in.stack.InputInOrder(pkts, way)
	}
}

// act does what the state machines ask for and tells when to look again.
func (c *Client) act(now time.Time) time.Time {
	c.retry(now)
	c.release(now)
	if c.session != nil {
		c.session.Advance(now)
		c.ikeEvents(now, c.session)
	}
	if c.next != nil {
		c.next.Advance(now)
		c.ikeEvents(now, c.next)
	}
	if c.registrar != nil {
		c.registrar.Advance(now)
		c.registrarActions(now)
		c.watchLoneliness(now)
		c.learn()
		c.observe(now)
	}
	if c.foreign != nil {
		c.foreignAct(now)
	}
	if c.connected() {
		c.sendKeepalive(now)
	}
	return c.nextTimeout()
}

func (c *Client) nextTimeout() time.Time {
	next := c.retryAt
	add := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if c.session != nil {
		add(c.session.NextTimeout())
	}
	if c.next != nil {
		add(c.next.NextTimeout())
		if len(c.held) > 0 {
			add(c.heldUntil)
		}
	}
	if c.connected() {
		add(c.keepalive)
	}
	if c.foreign != nil {
		add(c.foreign.retryAt)
		if c.next == nil {
			add(c.deafAt())
		}
	}
	if c.registrar != nil {
		add(c.registrar.NextTimeout())
		add(c.finishAt())
		if !c.lonely.IsZero() && c.next == nil {
			add(c.lonely.Add(lonelyLimit))
		}
	}
	return next
}
