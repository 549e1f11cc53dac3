// Package udp carries ESP and IKE in UDP datagrams (RFC 3948).
//
// On Linux whole runs of packets pass the kernel in one call (UDP_SEGMENT and
// UDP_GRO), where a test at the start finds that it can.
//
// # Limitations
//
// Only on Linux does a server that listens on an unspecified address know which
// of its addresses a datagram came to; elsewhere its descriptions then have an
// unspecified source, and the system chooses the address that replies leave from.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// Options of both ends. The zero value of a field means the default.
type Options struct {
	// WireMTU is the largest IP packet to send, headers included, in bytes; by default
	// 9000 where the system can be kept from making fragments, as on Linux, and 1500
	// elsewhere. Larger ones are never fragmented but lost or refused, as are those
	// that the interface or the path does not take.
	WireMTU int
	// MaxCarriers bounds how many remote addresses a server remembers; 65,536
	// by default. The one longest unheard of is forgotten first.
	MaxCarriers int
	// Idle is how long a server remembers a remote address without hearing
	// from it; 10 minutes by default.
	Idle time.Duration
	// NoOffload has every datagram cross the system call by itself, where
	// Linux would take and give many at once.
	NoOffload bool
	// IKEOnly is for a server's port 500: each datagram is an IKE message
	// without the non-ESP marker, and ESP cannot be sent (RFC 7296, Section 2.23).
	IKEOnly bool
	// Port is that of the server which a client sends to in place of the shared one;
	// its carriers are called by it (transports.UDPOn). 0 keeps the shared one.
	Port uint16
	// Bare is for package esp: there is no UDP header, as the network's sockets
	// are those of IP protocol 50. All ports are zero.
	Bare bool
}

// name is what the carriers are called.
func (o Options) name() transports.Name {
	if o.Bare {
		return transports.ESP
	}
	if o.Port != 0 {
		return transports.UDPOn(o.Port)
	}
	return transports.UDP
}

func (o Options) withDefaults() Options {
	if o.WireMTU == 0 {
		o.WireMTU = defaultWireMTU
	}
	if o.MaxCarriers == 0 {
		o.MaxCarriers = 65536
	}
	if o.Idle == 0 {
		o.Idle = 10 * time.Minute
	}
	return o
}

// mtu is what remains of WireMTU for one ESP packet.
func (o Options) mtu(remote netip.Addr) int {
	const ipv4, ipv6 = 20, 40
	udp := 8
	if o.Bare {
		udp = 0
	}
	if remote.Is4() {
		return o.WireMTU - ipv4 - udp
	}
	return o.WireMTU - ipv6 - udp
}

// Keepaliver is what carriers of this package implement besides
// transports.Carrier.
type Keepaliver interface {
	// Keepalive sends one NAT-keepalive, RFC 3948, Section 2.3.
	Keepalive() error
}

// "The sender MUST use a one-octet-long payload with the value 0xFF."
// RFC 3948, Section 2.3
var keepalive = []byte{0xFF}

// New gives the client's transport.
func New(o Options) transports.Transport { return &transport{o.withDefaults()} }

type transport struct{ opts Options }

func (t *transport) Name() transports.Name { return t.opts.name() }

// Dial opens a socket and sends the first packets; it waits for nothing.
func (t *transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	if port := t.opts.Port; port != 0 {
		o.Remote = netip.AddrPortFrom(o.Remote.Addr(), port)
	}
	conn, err := o.Network.DialUDP(ctx, o.Local, o.Remote)
	if err != nil {
		return nil, fmt.Errorf("dial %s over %s: %w", o.Remote, t.Name(), err)
	}
	c := &client{
		sock:    wrapConn(conn, !t.opts.NoOffload),
		handler: o.Handler,
		desc: transports.Description{
			Encapsulation: t.Name(),
			Source:        transports.AddrPort(conn.LocalAddr()),
			Destination:   transports.AddrPort(conn.RemoteAddr()),
		},
	}
	c.mtu = t.opts.mtu(c.desc.Destination.Addr())
	if o.First != nil {
		if err := c.Send(o.First(c.desc)); err != nil && fatal(err) {
			conn.Close()
			return nil, fmt.Errorf("dial %s over %s: %w", o.Remote, t.Name(), err)
		}
	}
	go c.run()
	return c, nil
}

// A client is the carrier of a connected socket.
type client struct {
	sock    socket
	handler transports.Handler
	desc    transports.Description
	mtu     int

	mu    sync.Mutex
	cause error // why it ended; nil while it lives
}

func (c *client) Name() transports.Name             { return c.desc.Encapsulation }
func (c *client) MTU() int                          { return c.mtu }
func (c *client) Describe() transports.Description  { return c.desc }
func (c *client) Validated() bool                   { return false }
func (c *client) Close() error                      { c.end(net.ErrClosed); return nil }
func (c *client) write(b []byte, segment int) error { return c.sock.write(b, segment, peer{}) }
func (c *client) Send(ps []transports.Packet) error {
	return c.sent(sendAll(ps, c.mtu, c.sock, peer{}))
}
func (c *client) Keepalive() error { return c.sent(c.write(keepalive, len(keepalive))) }

// sent looks at what came of sending: a socket whose network is gone, or whose
// peer's host said that nobody listens, is of no use any more.
func (c *client) sent(err error) error {
	if err == nil {
		return nil
	}
	if fatal(err) {
		c.end(err)
	}
	if !c.alive() {
		return fmt.Errorf("send over %s: %w: %w", c.Name(), net.ErrClosed, err)
	}
	return fmt.Errorf("send over %s: %w", c.Name(), err)
}

func (c *client) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause == nil
}

func (c *client) end(err error) {
	c.mu.Lock()
	first := c.cause == nil
	if first {
		c.cause = err
	}
	c.mu.Unlock()
	if first {
		c.sock.close()
	}
}

func (c *client) run() {
	r := newReceiver()
	defer r.release()
	for {
		ps, _, err := r.receive(c.sock)
		if err != nil {
			c.end(err)
			break
		}
		if len(ps) > 0 && c.alive() {
			c.handler.Receive(c, ps)
		}
	}
	c.mu.Lock()
	err := c.cause
	c.mu.Unlock()
	c.handler.Closed(c, fmt.Errorf("%s carrier to %s: %w", c.Name(), c.desc.Destination, err))
}

// fatal tells errors of the path and the socket from those of one packet.
func fatal(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return true
	}
	for _, e := range fatalErrnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
