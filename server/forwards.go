package server

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"github.com/godwit-net/godwit/server/forward"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/tunnel/portmsg"
)

// newForwards makes the service by which clients ask for ports.
func (s *Server) newForwards() *forward.Service {
	inner := func() (list []netip.Addr) {
		for _, a := range []netip.Addr{s.gateway4, s.gateway6} {
			if a.IsValid() {
				list = append(list, a)
			}
		}
		return list
	}
	return forward.New(forward.Config{
		Logger: s.log,
		User: func(a netip.Addr) (string, bool) {
			v, ok := s.routes.Load(a)
			if !ok {
				return "", false
			}
			return v.(*peer).user.Name, true
		},
		Allow: s.c.AllowPort,
		ListenTCP: func(at netip.AddrPort) ([]net.Listener, error) {
			if at.Addr().IsValid() {
				return open(s.c.Network.ListenTCP(context.Background(), at))
			}
			return each(inner(), func(a netip.Addr) (net.Listener, error) {
				return s.stack.ListenTCP(netip.AddrPortFrom(a, at.Port()))
			})
		},
		ListenUDP: func(at netip.AddrPort) ([]forward.Socket, error) {
			if at.Addr().IsValid() {
				pc, err := s.c.Network.ListenUDP(context.Background(), at)
				return open[forward.Socket](&socket{pc}, err)
			}
			return each(inner(), func(a netip.Addr) (forward.Socket, error) {
				return s.stack.ListenUDP(netip.AddrPortFrom(a, at.Port()))
			})
		},
		DialTCP: s.stack.DialTCP,
		DialUDP: s.stack.DialUDP,
	})
}

// open makes a list of one.
func open[T any](one T, err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return []T{one}, nil
}

// each opens a socket at each address, or at none.
func each[T interface{ Close() error }](at []netip.Addr, listen func(netip.Addr) (T, error)) (all []T, err error) {
	for _, a := range at {
		one, err := listen(a)
		if err != nil {
			for _, c := range all {
				_ = c.Close()
			}
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// socket is a transports.PacketConn with the addresses of package net.
type socket struct{ transports.PacketConn }

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.ReadFromUDPAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not a *net.UDPAddr")
	}
	return s.WriteToUDPAddrPort(b, udp.AddrPort())
}

// serveForwards serves requests for ports at the server's inner addresses until
// stop. The error is of a port that cannot be had.
func (s *Server) serveForwards(serve func(func() error)) (stop func(), err error) {
	if s.c.AllowPort == nil {
		return func() {}, nil
	}
	f := s.newForwards()
	var listeners []net.Listener
	stop = func() {
		for _, ln := range listeners {
			_ = ln.Close()
		}
		f.Close()
	}
	for _, inner := range []netip.Addr{s.gateway4, s.gateway6} {
		if !inner.IsValid() {
			continue
		}
		ln, err := s.stack.ListenTCP(netip.AddrPortFrom(inner, portmsg.ServicePort))
		if err != nil {
			stop()
			return nil, err
		}
		listeners = append(listeners, ln)
		serve(func() error { return f.Serve(ln) })
	}
	s.forwards.Store(f)
	return stop, nil
}

// Recheck asks AllowPort again about the ports that clients have, and closes
// those that are not allowed any more.
func (s *Server) Recheck() {
	if f := s.forwards.Load(); f != nil {
		f.Recheck()
	}
}

// release closes a client's ports.
func (s *Server) release(user string, streams bool) {
	if f := s.forwards.Load(); f != nil {
		f.Release(user, streams)
	}
}

// egress is Config.Egress for what is outside, and leads to the ports that
// clients have at the server's inner addresses.
func (s *Server) egress(ctx context.Context, network, address string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return s.c.Egress(ctx, network, address)
	}
	a, err := netip.ParseAddr(host)
	port, perr := strconv.ParseUint(service, 10, 16)
	if err != nil || perr != nil || a != s.gateway4 && a != s.gateway6 {
		return s.c.Egress(ctx, network, address)
	}
	if f := s.forwards.Load(); f == nil || !f.Inner("tcp", uint16(port)) {
		return s.c.Egress(ctx, network, address)
	}
	return s.stack.DialTCP(ctx, netip.AddrPortFrom(a, uint16(port)))
}
