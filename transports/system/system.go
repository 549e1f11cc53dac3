// Package system is the operating system's network, as a transports.Network.
package system

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/godwit-net/godwit/transports"
)

// A Control function sees each socket before it is bound or connected, to set
// marks and the like. See net.Dialer.Control.
type Control func(network, address string, c syscall.RawConn) error

// An Option changes how New's network makes sockets.
type Option func(*network)

// WithControl calls f for every socket. Several are called in order.
func WithControl(f Control) Option {
	return func(n *network) { n.control = append(n.control, f) }
}

// New gives the system's network.
func New(opts ...Option) transports.Network {
	n := new(network)
	for _, o := range opts {
		o(n)
	}
	return n
}

type network struct{ control []Control }

var errStub = errors.New("not yet")

func (n *network) DialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	return nil, errStub
}
func (n *network) ListenUDP(ctx context.Context, local netip.AddrPort) (transports.PacketConn, error) {
	return nil, errStub
}
func (n *network) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	return nil, errStub
}
func (n *network) ListenTCP(ctx context.Context, local netip.AddrPort) (net.Listener, error) {
	return nil, errStub
}
