// Package system is the operating system's network, as a transports.Network.
package system

import (
	"context"
	"fmt"
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

// Through has sockets leave by the interface of this name, whatever the routes
// prefer, where the system can do that: Linux, macOS and Windows. Where it
// refuses, the socket is as it would be without.
func Through(iface string) Option {
	return WithControl(func(network, _ string, c syscall.RawConn) error {
		// A socket that follows the routes is better than none.
		_ = c.Control(func(fd uintptr) { _ = bind(fd, network, iface) })
		return nil
	})
}

// New gives the system's network. Listening on an unspecified address, of
// either family, takes IPv4 and IPv6 where the system has both.
func New(opts ...Option) transports.Network {
	n := new(network)
	for _, o := range opts {
		o(n)
	}
	return n
}

var _ transports.PacketConn = (*net.UDPConn)(nil)

type network struct {
	control []Control
	shunned shunned
}

func (n *network) setUp(network, address string, c syscall.RawConn) error {
	for _, f := range n.control {
		if err := f(network, address, c); err != nil {
			return err
		}
	}
	return nil
}

// DialUDP implements transports.Network. It gives a *net.UDPConn.
func (n *network) DialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: n.setUp}
	if local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "udp", remote.String())
}

// ListenUDP implements transports.Network. It gives a *net.UDPConn.
func (n *network) ListenUDP(ctx context.Context, local netip.AddrPort) (transports.PacketConn, error) {
	lc := net.ListenConfig{Control: n.setUp}
	c, err := lc.ListenPacket(ctx, "udp", listenAddress(local))
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("listen on %s: not a UDP socket: %T", local, c)
	}
	return u, nil
}

// DialTCP implements transports.Network. It gives a *net.TCPConn.
func (n *network) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: n.setUpTCP}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return d.DialContext(ctx, "tcp", remote.String())
}

// ListenTCP implements transports.Network. Its connections are *net.TCPConn, or
// transports.Handshaking where data came with the SYN.
func (n *network) ListenTCP(ctx context.Context, local netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		listenEarly(c)
		return n.setUp(network, address, c)
	}}
	ln, err := lc.Listen(ctx, "tcp", listenAddress(local))
	if err != nil {
		return nil, err
	}
	return earlyListener{ln}, nil
}

// listenAddress leaves out an unspecified address: that is how the net package
// asks for a socket of both families.
func listenAddress(local netip.AddrPort) string {
	if !local.Addr().IsValid() || local.Addr().IsUnspecified() {
		return fmt.Sprintf(":%d", local.Port())
	}
	return local.String()
}
