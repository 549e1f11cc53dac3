package web

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"

	"github.com/godwit-net/godwit/transports"
)

// Describe is how the server sees the connection of a request: Source is ours.
// certHash is the SHA-256 of the certificate that TLS visitors are shown.
func Describe(r *http.Request, certHash [32]byte) transports.Description {
	d := transports.Description{Authority: r.Host, Path: r.URL.Path}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		d.Source = transports.AddrPort(a)
	}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		d.Destination = transports.Unmap(a)
	}
	if secure(r) {
		d.CertHash = certHash
	}
	return d
}

// connKey is the context key of the request's net.Conn.
type connKey struct{}

// WithConn is for http.Server.ConnContext: it has Conn know the connection.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// Conn gives the connection that a request came by; nil if that is not known.
func Conn(r *http.Request) net.Conn {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	return c
}

func secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	_, ok := r.Context().Value(connKey{}).(interface{ ConnectionState() tls.ConnectionState })
	return ok
}
