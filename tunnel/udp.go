package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// DialUDP gives a UDP socket connected to remote.
func (s *Stack) DialUDP(remote netip.AddrPort) (net.Conn, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(remote), Err: err}
	}
	if !remote.IsValid() || remote.Addr().IsUnspecified() {
		return fail(errors.New("not a host's address"))
	}
	if s.isClosed() {
		return fail(net.ErrClosed)
	}
	to := full(remote)
	c, err := s.udp(remote.Addr(), func(ep tcpip.Endpoint) tcpip.Error { return ep.Connect(to) })
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// ListenUDP gives an unconnected UDP socket bound to local; an unspecified
// address means all of the stack's of that family, port 0 a free one. It sends
// to *net.UDPAddr only.
func (s *Stack) ListenUDP(local netip.AddrPort) (net.PacketConn, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	fail := func(err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(local), Err: err}
	}
	if !local.IsValid() {
		return fail(errors.New("no address"))
	}
	if s.isClosed() {
		return fail(net.ErrClosed)
	}
	at := full(local)
	c, err := s.udp(local.Addr(), func(ep tcpip.Endpoint) tcpip.Error { return ep.Bind(at) })
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// udp makes a socket of a's family, with one of its ends set.
func (s *Stack) udp(a netip.Addr, set func(tcpip.Endpoint) tcpip.Error) (*udpConn, error) {
	var queue waiter.Queue
	ep, terr := s.stack.NewEndpoint(udp.ProtocolNumber, protocol(a), &queue)
	if terr != nil {
		return nil, wrap(terr)
	}
	// What does not fit the MTU goes out in fragments. With path MTU discovery,
	// which is the default, gVisor makes fragments all the same, but all with the
	// Identification 0: one that is lost would have all later datagrams of these
	// hosts put together wrongly, each with a piece of the one before.
	terr = ep.SetSockOptInt(tcpip.MTUDiscoverOption, int(tcpip.PMTUDiscoveryDont))
	if terr == nil {
		terr = set(ep)
	}
	if terr != nil {
		ep.Close()
		return nil, wrap(terr)
	}
	return &udpConn{UDPConn: gonet.NewUDPConn(&queue, ep), stack: s, v4: a.Is4()}, nil
}

// A udpConn is gonet's socket with the errors of package net.
type udpConn struct {
	*gonet.UDPConn
	stack  *Stack
	v4     bool
	closed atomic.Bool
}

func (c *udpConn) gone() bool { return c.closed.Load() || c.stack.isClosed() }

func (c *udpConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	return n, translate(err, c.gone())
}

func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.UDPConn.ReadFrom(b)
	return n, a, translate(err, c.gone())
}

func (c *udpConn) Write(b []byte) (int, error) {
	n, err := c.UDPConn.Write(b)
	return n, translate(err, c.gone())
}

func (c *udpConn) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok || a == nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: net.InvalidAddrError("not a *net.UDPAddr")}
	}
	// gVisor wants exactly the bytes of the socket's family.
	ip := a.IP.To4()
	if !c.v4 {
		ip = a.IP.To16()
	}
	if ip == nil || !c.v4 && a.IP.To4() != nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: net.InvalidAddrError("not of the socket's family")}
	}
	n, err := c.UDPConn.WriteTo(b, &net.UDPAddr{IP: ip, Port: a.Port})
	return n, translate(err, c.gone())
}

// Close wakes Read.
func (c *udpConn) Close() error {
	if c.closed.Swap(true) {
		return &net.OpError{Op: "close", Net: "udp", Err: net.ErrClosed}
	}
	err := c.UDPConn.Close()
	_ = c.SetDeadline(time.Unix(1, 0)) // long ago
	return err
}
