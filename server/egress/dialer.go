package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

const (
	defaultTimeout = 30 * time.Second
	// attemptDelay is the head start of one address over the next: "Connection
	// Attempt Delay [...] recommended value for a default delay is 250
	// milliseconds". RFC 8305, Section 5
	attemptDelay = 250 * time.Millisecond
	// maxAttempts bounds how many addresses of a name are tried.
	maxAttempts = 8
)

// A Resolver finds the addresses of a name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A Dialer opens connections that its policy allows. What is dialled are the
// very addresses that were checked: a name is resolved once for each
// connection, so it cannot be allowed with one address and reached by another.
type Dialer struct {
	Policy   Policy
	Resolver Resolver // nil means net.DefaultResolver
	// Base opens a connection to an address that has been checked. It must
	// give up when ctx ends. network is "tcp". Nil means the system's sockets.
	Base func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	// Timeout bounds one DialContext, resolving included; 30 s by default.
	Timeout time.Duration
}

// DialContext connects to address, a host:port with a name or an IP address as
// host and a port from 1 to 65535. network is tcp, tcp4 or tcp6. Addresses of
// a name are tried in the resolver's order, families in turn, each with 250 ms
// of head start over the next (RFC 8305).
//
// Errors match those of this package, or the system's.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	family, ok := map[string]string{"tcp": "ip", "tcp4": "ip4", "tcp6": "ip6"}[network]
	if !ok {
		return nil, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("port %q is not between 1 and 65535", service)
	}
	addrs, err := d.resolve(ctx, family, host)
	if err != nil {
		return nil, err
	}
	addrs, err = d.filter(addrs, family)
	if err != nil {
		return nil, err
	}
	return d.race(ctx, addrs, uint16(port))
}

func (d *Dialer) resolve(ctx context.Context, family, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if host == "" {
		return nil, fmt.Errorf("%w: empty name", ErrHostUnreachable)
	}
	var r Resolver = net.DefaultResolver
	if d.Resolver != nil {
		r = d.Resolver
	}
	addrs, err := r.LookupNetIP(ctx, family, host)
	var de *net.DNSError
	switch {
	case err == nil:
		return addrs, nil
	case ctx.Err() != nil, errors.As(err, &de) && de.IsTimeout:
		return nil, fmt.Errorf("%w: resolve: %w", ErrTimeout, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrHostUnreachable, err)
}

// filter keeps what the policy allows, families in turn starting with that of
// the first address (RFC 8305, Section 4). Where it leaves nothing, the error
// tells of the first address denied.
func (d *Dialer) filter(addrs []netip.Addr, family string) ([]netip.Addr, error) {
	var first, second []netip.Addr
	var refused error
	for _, a := range addrs {
		a = a.Unmap()
		if family == "ip4" && !a.Is4() || family == "ip6" && !a.Is6() {
			continue
		}
		if err := d.Policy.Check(a); err != nil {
			if refused == nil {
				refused = err
			}
			continue
		}
		if len(first) == 0 || first[0].Is4() == a.Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	switch {
	case len(out) > 0:
		return out[:min(len(out), maxAttempts)], nil
	case refused != nil:
		return nil, refused
	}
	return nil, fmt.Errorf("%w: no address", ErrHostUnreachable)
}

// race tries addresses one after the other without waiting long for any. It
// gives the first connection, or else the error of the first address.
func (d *Dialer) race(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	base := d.Base
	if base == nil {
		base = system
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	type result struct {
		i   int
		c   net.Conn
		err error
	}
	results := make(chan result, len(addrs))
	errs := make([]error, len(addrs))
	started, ended := 0, 0
	start := func() {
		i := started
		started++
		go func() {
			c, err := base(ctx, "tcp", netip.AddrPortFrom(addrs[i], port))
			results <- result{i, c, err}
		}()
	}
	next := time.NewTimer(attemptDelay)
	defer next.Stop()
	start()
	for {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				cancel()
				// Attempts that succeed all the same are closed.
				for range started - ended {
					if late := <-results; late.err == nil {
						_ = late.c.Close()
					}
				}
				return r.c, nil
			}
			errs[r.i] = r.err
			if started < len(addrs) {
				start()
				next.Reset(attemptDelay)
			} else if ended == started {
				return nil, errs[0]
			}
		case <-next.C:
			if started < len(addrs) {
				start()
				next.Reset(attemptDelay)
			}
		}
	}
}

// system opens an ordinary socket to a literal address, which resolves nothing.
func system(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	var nd net.Dialer
	return nd.DialContext(ctx, network, addr.String())
}
