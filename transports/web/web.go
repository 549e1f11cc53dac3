// Package web is what the encapsulations in HTTP share: how a client connects to
// the server, as a browser would, and what both ends see of each other.
package web

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
)

// Options are how a client visits its server. The zero value of a field means
// the default.
type Options struct {
	TLS bool
	// ServerName is for TLS; the host of Host by default.
	ServerName string
	// Host is the Host header; by default ServerName, or else the server's
	// address, with its port where that is not the scheme's own.
	Host string
	// Path begins with a slash; "/" by default.
	Path string
	// CertHash is the SHA-256 of the server's certificate in DER. When it is
	// zero the Web PKI decides, with the names of ServerName.
	CertHash [32]byte
	// Fingerprint is whose ClientHello and User-Agent are sent; Go by default.
	Fingerprint Fingerprint
	// RootCAs are for the Web PKI; nil means the system's.
	RootCAs *x509.CertPool
}

// Connect opens a connection to the server, through TLS if the options say so;
// then the ClientHello may ride in the SYN. raw is the connection beneath TLS:
// closing it ends everything at once. An error may be a *CertError. Cancelling ctx
// ends the attempt, not the connection.
func (o Options) Connect(ctx context.Context, to transports.Opening) (conn, raw net.Conn, d transports.Description, err error) {
	if o.TLS {
		conn, _, err = transports.DialEarly(ctx, to.Network, to.Local, to.Remote)
	} else {
		conn, err = to.Network.DialTCP(ctx, to.Local, to.Remote)
	}
	if err != nil {
		return nil, nil, d, err
	}
	stream.Tune(conn)
	raw = conn
	d = stream.Describe(conn)
	d.Authority, d.Path = o.Authority(to.Remote), o.Path
	if o.TLS {
		err = stream.Within(ctx, raw, func() (err error) {
			conn, d.CertHash, err = o.secure(ctx, conn, d.Authority)
			return err
		})
		if err != nil {
			return nil, nil, d, certError(err)
		}
	}
	return conn, raw, d, nil
}

// Authority is the Host header of requests to remote.
func (o Options) Authority(remote netip.AddrPort) string {
	if o.Host != "" {
		return o.Host
	}
	port := uint16(80)
	if o.TLS {
		port = 443
	}
	host := remote.Addr().String()
	if o.ServerName != "" {
		host = o.ServerName
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.WithZone("").String()
		if a.Is6() {
			host = "[" + host + "]"
		}
	}
	if remote.Port() == port {
		return host
	}
	return fmt.Sprintf("%s:%d", host, remote.Port())
}
