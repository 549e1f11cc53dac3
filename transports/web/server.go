package web

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"github.com/godwit-net/godwit/transports"
)

// A Mount is the server's end of an encapsulation in HTTP: a part of a web server
// that takes the requests that are its own.
type Mount interface {
	// ServeMount answers r and gives true when all of it is done. For a request that
	// is not its own it gives false, and has neither written to w nor read r's body:
	// the site answers it. It may be called from several goroutines.
	//
	// The server has set no deadlines for r's body or for w. Who keeps a request for
	// long sets those that it needs by http.ResponseController.
	ServeMount(w http.ResponseWriter, r *http.Request, v Visit) bool
	// Close ends what is being answered. Later requests are not the mount's.
	Close() error
}

// A Visit is what the server's port knows of the connection that a request came by.
type Visit struct {
	// Description is how this end sees the connection: Source is ours, as the
	// visitor asked for it, and Destination the visitor's, without a port where
	// only a reverse proxy knows it. Proxy is the reverse proxy that told, if it is
	// trusted. Authority and Path are the request's.
	Description transports.Description
	// Conn is the connection beneath HTTP; nil if it is not known.
	Conn net.Conn
}

// NewVisit tells of a request by what its connection says. A certificate is known
// where a connection on the way down to the socket has a method CertHash.
func NewVisit(r *http.Request) Visit {
	v := Visit{Description: transports.Description{Authority: r.Host, Path: r.URL.Path}}
	v.Conn, _ = r.Context().Value(connKey{}).(net.Conn)
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		v.Description.Source = transports.AddrPort(a)
	}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		v.Description.Destination = transports.Unmap(a)
	}
	if r.TLS != nil {
		v.Description.CertHash = shown(v.Conn)
	}
	return v
}

// shown gives the SHA-256 of the certificate that a visitor was shown.
func shown(conn net.Conn) (sum [32]byte) {
	for conn != nil {
		if c, ok := conn.(interface{ CertHash() [32]byte }); ok {
			return c.CertHash()
		}
		below, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = below.NetConn()
	}
	return sum
}

// connKey is the context key of the request's net.Conn.
type connKey struct{}

// WithConn is for http.Server.ConnContext: it has NewVisit know the connection.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
