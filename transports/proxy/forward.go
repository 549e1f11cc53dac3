package proxy

import (
	"context"
	"fmt"
	"net"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
)

// Forward implements transports.ForwardNetwork.
func (n *network) Forward() transports.Forwarding {
	if n.upstream.scheme == "socks5" {
		return nil
	}
	return forwarding{n}
}

// forwarding is an HTTP proxy that is asked for plain HTTP.
type forwarding struct{ n *network }

func (f forwarding) Host() string { return f.n.upstream.host }

func (f forwarding) Dial(ctx context.Context) (net.Conn, error) {
	c, err := f.n.dialProxy(ctx)
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s: %w", f.n.upstream, err)
	}
	stream.Tune(c)
	return c, nil
}

func (f forwarding) Authorization(method, uri string) string {
	_, h := f.n.upstream.auth.header(method, uri)
	return h
}

func (f forwarding) Challenged(headers []string, again bool) error {
	c, err := f.n.upstream.auth.challenged(headers)
	// See httpConnect.
	if err == nil && again && !c.stale {
		err = fmt.Errorf("%w: HTTP status 407", ErrCredentials)
	}
	if err != nil {
		return fmt.Errorf("through the proxy %s: %w", f.n.upstream, err)
	}
	return nil
}
