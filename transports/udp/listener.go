package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// maxErrors ends Serve after so many failed reads in a row. Single ones are
// about single datagrams.
const maxErrors = 64

// A Listener serves every client of one UDP socket.
//
// There is one carrier for each remote address and address of ours that it sends
// to. It is the same one for as long as somebody keeps it or it is remembered
// (see Options). A carrier that is forgotten is not closed, and Closed is not
// called for it.
type Listener struct {
	sock    socket
	local   netip.AddrPort
	handler transports.Handler
	opts    Options
	wg      sync.WaitGroup

	mu     sync.Mutex
	cache  *cache
	closed bool
}

// Listen opens the socket. Serve has to be called to receive from it.
func Listen(n transports.Network, local netip.AddrPort, h transports.Handler) (*Listener, error) {
	return Options{}.Listen(n, local, h)
}

// Listen is like the function of that name, with options.
func (o Options) Listen(n transports.Network, local netip.AddrPort, h transports.Handler) (*Listener, error) {
	conn, err := n.ListenUDP(context.Background(), local)
	if err != nil {
		return nil, fmt.Errorf("listen on %s over %s: %w", local, o.name(), err)
	}
	o = o.withDefaults()
	sock := wrapPacketConn(conn, !o.NoOffload && !o.IKEOnly)
	if o.IKEOnly {
		sock = ikeSocket{sock}
	}
	return &Listener{
		sock:    sock,
		local:   transports.AddrPort(conn.LocalAddr()),
		handler: h,
		opts:    o,
		cache:   newCache(o.MaxCarriers, o.Idle),
	}, nil
}

// Reach makes a carrier to a remote address from which nothing has come: its peer may
// be where datagrams arrive and none leave from. Local is the address of this host to
// send from. False: there is one already, of whomever it is.
func (l *Listener) Reach(local netip.Addr, remote netip.AddrPort) (transports.Carrier, bool) {
	at := peer{local: local, remote: transports.Unmap(remote)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.cache.get(at, time.Now()) != nil {
		return nil, false
	}
	c := &served{l: l, peer: at, mtu: l.opts.mtu(at.remote.Addr())}
	l.cache.add(c, time.Now())
	return c, true
}

// Addr is the address the socket is bound to.
func (l *Listener) Addr() netip.AddrPort { return l.local }

// Serve receives until Close, or until the socket fails.
func (l *Listener) Serve() error {
	err := l.receive()
	l.Close()
	l.mu.Lock()
	var live []*served
	for _, c := range l.cache.all() {
		if !c.closed {
			c.closed = true
			live = append(live, c)
		}
	}
	l.mu.Unlock()
	for _, c := range live {
		l.handler.Closed(c, fmt.Errorf("%s carrier to %s: %w", c.Name(), c.peer.remote, net.ErrClosed))
	}
	l.wg.Wait()
	return fmt.Errorf("receive over %s: %w", l.opts.name(), err)
}

func (l *Listener) receive() error {
	r := newReceiver()
	defer r.release()
	failed := 0
	for {
		ps, from, err := r.receive(l.sock)
		if err != nil {
			// An error of a socket without a peer is about a datagram that
			// somebody did not get; the socket goes on.
			if failed++; errors.Is(err, net.ErrClosed) || failed == maxErrors {
				return err
			}
			continue
		}
		failed = 0
		if len(ps) == 0 {
			continue
		}
		if !from.local.IsValid() {
			from.local = l.local.Addr()
		}
		l.mu.Lock()
		c := l.cache.get(from, time.Now())
		if c == nil {
			c = &served{l: l, peer: from, mtu: l.opts.mtu(from.remote.Addr())}
			l.cache.add(c, time.Now())
		}
		c.delivering = true
		l.mu.Unlock()
		l.handler.Receive(c, ps)
		l.mu.Lock()
		c.delivering = false
		tell := c.closed
		l.mu.Unlock()
		if tell {
			c.tell()
		}
	}
}

// Close ends Serve and all carriers.
func (l *Listener) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	return l.sock.close()
}

// A served is the carrier of one remote address.
type served struct {
	l    *Listener
	peer peer
	mtu  int

	admitted atomic.Bool

	// Kept by l.mu.
	closed     bool
	delivering bool // the reader is in Receive and will call Closed
	heard      time.Time
	prev, next *served // in the cache
}

func (c *served) Name() transports.Name { return c.l.opts.name() }
func (c *served) MTU() int              { return c.mtu }
func (c *served) Validated() bool       { return false }

// Admit implements transports.Admitting.
func (c *served) Admit() { c.admitted.Store(true) }

// Admitted implements transports.Admitting.
func (c *served) Admitted() bool { return c.admitted.Load() }

func (c *served) Describe() transports.Description {
	return transports.Description{
		Encapsulation: c.Name(),
		Source:        netip.AddrPortFrom(c.peer.local, c.l.local.Port()),
		Destination:   c.peer.remote,
	}
}

func (c *served) Send(ps []transports.Packet) error {
	if !c.alive() {
		return fmt.Errorf("send over %s: %w", c.Name(), net.ErrClosed)
	}
	if err := sendAll(ps, c.mtu, c.l.sock, c.peer); err != nil {
		return fmt.Errorf("send over %s: %w", c.Name(), err)
	}
	return nil
}

// Keepalive implements Keepaliver.
func (c *served) Keepalive() error {
	if !c.alive() {
		return fmt.Errorf("send over %s: %w", c.Name(), net.ErrClosed)
	}
	if err := c.l.sock.write(keepalive, len(keepalive), c.peer); err != nil {
		return fmt.Errorf("send over %s: %w", c.Name(), err)
	}
	return nil
}

func (c *served) alive() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return !c.closed && !c.l.closed
}

// Close forgets the carrier. Later datagrams from its address make a new one.
func (c *served) Close() error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.l.cache.remove(c)
	if !c.delivering {
		// Not from here: the caller may hold what the handler needs.
		c.l.wg.Go(c.tell)
	}
	return nil
}

func (c *served) tell() {
	c.l.handler.Closed(c, fmt.Errorf("%s carrier to %s: %w", c.Name(), c.peer.remote, net.ErrClosed))
}
