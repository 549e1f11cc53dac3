package transports

import (
	"context"
	"net"
)

// A ForwardNetwork is a Network whose TCP connections go through a proxy that may
// be an HTTP proxy, which can be asked for plain HTTP in the absolute form (RFC
// 9112, Section 3.2.2) where it does not connect through.
type ForwardNetwork interface {
	Network
	// Forward gives the HTTP proxy; nil if it is none.
	Forward() Forwarding
}

// A Forwarding is an HTTP proxy that is asked in the absolute form.
type Forwarding interface {
	// Host is the proxy's HOST:PORT.
	Host() string
	// Dial connects to the proxy itself.
	Dial(ctx context.Context) (net.Conn, error)
	// Authorization gives the Proxy-Authorization for a request; empty if none is
	// known to be wanted.
	Authorization(method, uri string) string
	// Challenged takes the Proxy-Authenticate headers of an answer 407. Again says
	// that the request had answered such a challenge before. It gives an error when
	// there is nothing to answer.
	Challenged(headers []string, again bool) error
}
