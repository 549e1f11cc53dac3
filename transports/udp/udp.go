// Package udp carries ESP and IKE in UDP datagrams (RFC 3948).
package udp

import (
	"context"
	"errors"
	"net/netip"

	"github.com/godwit-net/godwit/transports"
)

// Options of both ends. The zero value of a field means the default.
type Options struct {
	// WireMTU is the largest IP packet to send, headers included, in bytes;
	// 1500 by default.
	WireMTU int
}

// New gives the client's transport.
func New(o Options) transports.Transport { return &transport{o} }

type transport struct{ opts Options }

func (t *transport) Name() transports.Name { return transports.UDP }

func (t *transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	return nil, errors.New("not yet")
}

// Keepaliver is what carriers of this package implement besides
// transports.Carrier.
type Keepaliver interface {
	// Keepalive sends one NAT-keepalive, RFC 3948, Section 2.3.
	Keepalive() error
}

// A Listener serves every client of one UDP socket.
type Listener struct{}

// Listen opens the socket. Serve has to be called to receive from it.
func Listen(n transports.Network, local netip.AddrPort, h transports.Handler) (*Listener, error) {
	return Options{}.Listen(n, local, h)
}

// Listen is like the function of that name, with options.
func (o Options) Listen(n transports.Network, local netip.AddrPort, h transports.Handler) (*Listener, error) {
	return nil, errors.New("not yet")
}

// Addr is the address the socket is bound to.
func (l *Listener) Addr() netip.AddrPort { return netip.AddrPort{} }

// Serve receives until Close.
func (l *Listener) Serve() error { return errors.New("not yet") }

// Close ends Serve and all carriers.
func (l *Listener) Close() error { return nil }
