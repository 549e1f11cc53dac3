package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/godwit-net/godwit/client/socks"
)

// EarlyData says for which destinations an application may send before it is
// known that they can be reached. What it sends then travels with the
// destination, so a stream costs no round trip to open; but a destination that
// cannot be reached shows as a broken connection, not as the error it is.
type EarlyData string

// The policies of Config.EarlyData.
const (
	// EarlyKnown is for destinations that were reached in the last ten
	// minutes. It is the default.
	EarlyKnown  EarlyData = "known"
	EarlyAlways EarlyData = "always"
	EarlyNever  EarlyData = "never"
)

// Errors of Dial; those of the target are the socks package's.
var errNotConnected = errors.New("no link to the server yet")

// Dial connects through the tunnel to host:port; a name is resolved at the
// server, or by the name servers that a gateway handed out. network must be tcp,
// tcp4 or tcp6. Before the link is up it waits for it until ctx ends. Where Config.EarlyData allows it does not wait for the
// destination: then its error comes from the connection's first Read.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	in, err := c.await(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	if in.resolver != nil {
		conn, err := in.dial(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
		return conn, nil
	}
	conn, err := c.pool.Take(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	if c.mayBeEarly(address) {
		early, err := socks.Begin(conn, address, func(err error) { c.reached.learn(address, err) })
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
		return early, nil
	}
	err = connect(ctx, conn, address)
	var refused *socks.ReplyError
	if err != nil && !errors.As(err, &refused) && ctx.Err() == nil {
		// A connection that was ready may lead to a server that was restarted
		// since. Nothing of the application's has been sent on it.
		if conn, err = c.dialService(ctx); err == nil {
			err = connect(ctx, conn, address)
		}
	}
	c.reached.learn(address, err)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return conn, nil
}

// await gives the inside of the link, once there is one, unless ctx ends first.
func (c *Client) await(ctx context.Context) (*inner, error) {
	select {
	case <-c.ready:
		return c.inner.Load(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errNotConnected, ctx.Err())
	}
}

// Gateway gives the server's inner address, where its services are. Before the
// link is up it waits for it until ctx ends. A gateway that is not godwit has none.
func (c *Client) Gateway(ctx context.Context) (netip.Addr, error) {
	in, err := c.await(ctx)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("the server's inner address: %w", err)
	case !in.gateway.IsValid():
		return netip.Addr{}, fmt.Errorf("the gateway has no inner address: %w", errors.ErrUnsupported)
	}
	return in.gateway, nil
}

// connect asks the service at the other end of conn for address and closes conn
// if that fails.
func connect(ctx context.Context, conn net.Conn, address string) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := socks.Connect(conn, address)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
	}
	return err
}

// dialService connects to the SOCKS5 service inside the tunnel.
func (c *Client) dialService(ctx context.Context) (net.Conn, error) {
	in := c.inner.Load()
	conn, err := in.stack.DialTCP(ctx, netip.AddrPortFrom(in.gateway, socksPort))
	if err != nil {
		return nil, fmt.Errorf("reach the server's inner address: %w", err)
	}
	return conn, nil
}

// Associate opens a socket to the datagram service inside the tunnel: each
// Write takes and each Read gives a datagram with the header of RFC 1928,
// Section 7. Before the link is up it waits for it until ctx ends.
func (c *Client) Associate(ctx context.Context) (net.Conn, error) {
	in, err := c.await(ctx)
	if err != nil {
		return nil, fmt.Errorf("associate: %w", err)
	}
	if in.resolver != nil {
		return nil, fmt.Errorf("associate: the gateway has no SOCKS service: %w", errors.ErrUnsupported)
	}
	return in.stack.DialUDP(netip.AddrPortFrom(in.gateway, socksPort))
}

const (
	reachedFor = 10 * time.Minute // how long a success counts
	maxReached = 1024             // destinations remembered
)

// reached remembers which destinations could be reached lately.
type reached struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (r *reached) lately(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.at[address]
	return ok && time.Since(at) < reachedFor
}

// learn takes the outcome of one attempt.
func (r *reached) learn(address string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.at, address)
		return
	}
	if r.at == nil {
		r.at = make(map[string]time.Time)
	}
	now := time.Now()
	if _, known := r.at[address]; !known && len(r.at) >= maxReached {
		r.forget(now)
	}
	r.at[address] = now
}

// forget makes room: what is too old goes, or else the oldest.
func (r *reached) forget(now time.Time) {
	var oldest string
	for a, at := range r.at {
		if now.Sub(at) >= reachedFor {
			delete(r.at, a)
		} else if oldest == "" || at.Before(r.at[oldest]) {
			oldest = a
		}
	}
	if len(r.at) >= maxReached {
		delete(r.at, oldest)
	}
}
