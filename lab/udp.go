package lab

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// udpBuffer is how many bytes a socket keeps for a slow reader.
const udpBuffer = 1 << 20

// maxUDP is the largest payload of a datagram in IPv4.
const maxUDP = 65507

// A udpSocket is a UDP socket, connected or not. Its fields from closed on are
// guarded by the Internet's lock.
type udpSocket struct {
	host   *Host
	local  netip.AddrPort // the address may be unspecified
	remote netip.AddrPort // zero when not connected

	closed   bool
	err      error // of an earlier datagram; given once
	queue    []*packet
	queued   int // bytes
	changed  signal
	readBy   deadline
	writeBy  deadline
	writable signal
}

var (
	_ net.Conn       = (*udpSocket)(nil)
	_ net.PacketConn = (*udpSocket)(nil)
)

func (h *Host) dialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (*udpSocket, error) {
	remote = unmap(remote)
	if ctx.Err() != nil {
		return nil, contextError(ctx, "dial", "udp", udpAddr(remote))
	}
	h.in.lock()
	defer h.in.mu.Unlock()
	source, err := h.bindAddr(local, remote.Addr())
	if err == nil {
		var s *udpSocket
		if s, err = h.addUDP(netip.AddrPortFrom(source, 0), remote); err == nil {
			return s, nil
		}
	}
	return nil, opError("dial", "udp", nil, udpAddr(remote), err)
}

// bindAddr is the address to connect to remote from, where local was asked for.
func (h *Host) bindAddr(local, remote netip.Addr) (netip.Addr, error) {
	if !remote.IsValid() || remote.IsUnspecified() {
		return netip.Addr{}, syscall.EINVAL
	}
	if local = local.Unmap().WithZone(""); !local.IsValid() || local.IsUnspecified() {
		return h.localAddress(remote)
	}
	if local.Is4() != remote.Is4() {
		return netip.Addr{}, syscall.EAFNOSUPPORT
	}
	if h.owner(local) == nil {
		return netip.Addr{}, syscall.EADDRNOTAVAIL
	}
	return local, nil
}

func (h *Host) listenUDP(ctx context.Context, local netip.AddrPort) (*udpSocket, error) {
	local = netip.AddrPortFrom(wildcard(local.Addr()), local.Port())
	if ctx.Err() != nil {
		return nil, contextError(ctx, "listen", "udp", udpAddr(local))
	}
	h.in.lock()
	defer h.in.mu.Unlock()
	err := error(syscall.EADDRNOTAVAIL)
	if local.Addr().IsUnspecified() || h.owner(local.Addr()) != nil {
		var s *udpSocket
		if s, err = h.addUDP(local, netip.AddrPort{}); err == nil {
			return s, nil
		}
	}
	return nil, opError("listen", "udp", nil, udpAddr(local), err)
}

// addUDP makes a socket bound to local, finding a port if it has none.
func (h *Host) addUDP(local, remote netip.AddrPort) (*udpSocket, error) {
	if h.in.closed {
		return nil, net.ErrClosed
	}
	used := func(port uint16) bool {
		return slices.ContainsFunc(h.udp[port], func(s *udpSocket) bool {
			return covers(s.local.Addr(), local.Addr()) || covers(local.Addr(), s.local.Addr())
		})
	}
	if local.Port() == 0 {
		port, err := h.ephemeral(used)
		if err != nil {
			return nil, err
		}
		local = netip.AddrPortFrom(local.Addr(), port)
	} else if used(local.Port()) {
		return nil, syscall.EADDRINUSE
	}
	s := &udpSocket{host: h, local: local, remote: remote}
	h.udp[local.Port()] = append(h.udp[local.Port()], s)
	return s, nil
}

// receiveUDP finds the socket for p, which has arrived.
func (h *Host) receiveUDP(p *packet) {
	var to *udpSocket
	for _, s := range h.udp[p.dst.Port()] {
		if !covers(s.local.Addr(), p.dst.Addr()) || s.remote.IsValid() && s.remote != p.src {
			continue
		}
		if to == nil || s.remote.IsValid() || !s.local.Addr().IsUnspecified() && !to.remote.IsValid() {
			to = s
		}
	}
	switch {
	case p.unreachable:
		h.in.trace(p, h.name, Delivered, "")
		// An unconnected socket is not told: the error is none of its other peers'.
		if to != nil && to.remote.IsValid() {
			to.err = syscall.ECONNREFUSED
			to.changed.broadcast()
		}
	case to == nil:
		h.in.drop(p, h.name, ByPort)
		_ = h.send(h.in.refusal(p))
	case to.queued+len(p.payload) > udpBuffer:
		h.in.drop(p, h.name, BySocket)
	default:
		h.in.trace(p, h.name, Delivered, "")
		to.queue = append(to.queue, p)
		to.queued += len(p.payload)
		to.changed.broadcast()
	}
}

// receive waits for a datagram.
func (s *udpSocket) receive(b []byte) (int, netip.AddrPort, error) {
	in := s.host.in
	in.lock()
	for {
		var err error
		switch {
		case s.closed:
			err = net.ErrClosed
		case s.readBy.passed():
			err = os.ErrDeadlineExceeded
		case s.err != nil:
			err, s.err = s.err, nil
		case len(s.queue) > 0:
			p := s.queue[0]
			s.queue[0] = nil
			s.queue = s.queue[1:]
			s.queued -= len(p.payload)
			in.mu.Unlock()
			return copy(b, p.payload), p.src, nil
		}
		if err != nil {
			in.mu.Unlock()
			return 0, netip.AddrPort{}, s.opError("read", err)
		}
		changed := s.changed.wait()
		in.mu.Unlock()
		<-changed
		in.lock()
	}
}

// transmit sends a datagram.
func (s *udpSocket) transmit(b []byte, to netip.AddrPort) (int, error) {
	in := s.host.in
	in.lock()
	defer in.mu.Unlock()
	defer in.flush()
	if err := s.trySend(b, unmap(to)); err != nil {
		return 0, s.opError("write", err)
	}
	return len(b), nil
}

func (s *udpSocket) trySend(b []byte, to netip.AddrPort) error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.writeBy.passed():
		return os.ErrDeadlineExceeded
	case s.err != nil:
		err := s.err
		s.err = nil
		return err
	case len(b) > maxUDP:
		return syscall.EMSGSIZE
	case !to.IsValid() || to.Addr().IsUnspecified() || to.Port() == 0:
		return syscall.EINVAL
	}
	from := s.local
	if from.Addr().IsUnspecified() {
		if from.Addr().Is4() && !to.Addr().Is4() {
			return syscall.EAFNOSUPPORT
		}
		a, err := s.host.localAddress(to.Addr())
		if err != nil {
			return err
		}
		from = netip.AddrPortFrom(a, from.Port())
	} else if from.Addr().Is4() != to.Addr().Is4() {
		return syscall.EAFNOSUPPORT
	}
	return s.host.send(&packet{proto: UDP, src: from, dst: to, payload: slices.Clone(b)})
}

func (s *udpSocket) opError(op string, err error) error {
	return opError(op, "udp", s.LocalAddr(), s.RemoteAddr(), err)
}

// Read gives the next datagram; what does not fit into b is lost.
func (s *udpSocket) Read(b []byte) (int, error) {
	n, _, err := s.receive(b)
	return n, err
}

// Write sends a datagram to the peer.
func (s *udpSocket) Write(b []byte) (int, error) { return s.transmit(b, s.remote) }

// ReadFromUDPAddrPort gives the next datagram and its source.
func (s *udpSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) { return s.receive(b) }

// WriteToUDPAddrPort sends a datagram to addr.
func (s *udpSocket) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return s.transmit(b, addr)
}

// ReadFrom implements net.PacketConn.
func (s *udpSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.receive(b)
	if err != nil {
		return 0, nil, err
	}
	return n, udpAddr(from), nil
}

// WriteTo implements net.PacketConn; addr is a *net.UDPAddr.
func (s *udpSocket) WriteTo(b []byte, addr net.Addr) (int, error) {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, s.opError("write", syscall.EINVAL)
	}
	return s.transmit(b, u.AddrPort())
}

// LocalAddr is a *net.UDPAddr.
func (s *udpSocket) LocalAddr() net.Addr { return udpAddr(s.local) }

// RemoteAddr is a *net.UDPAddr, or nil when the socket is not connected.
func (s *udpSocket) RemoteAddr() net.Addr {
	if !s.remote.IsValid() {
		return nil
	}
	return udpAddr(s.remote)
}

// SetDeadline sets both deadlines.
func (s *udpSocket) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline sets when reads fail.
func (s *udpSocket) SetReadDeadline(t time.Time) error { return s.set(&s.readBy, &s.changed, t) }

// SetWriteDeadline sets when writes fail; they never wait.
func (s *udpSocket) SetWriteDeadline(t time.Time) error { return s.set(&s.writeBy, &s.writable, t) }

func (s *udpSocket) set(d *deadline, w *signal, t time.Time) error {
	in := s.host.in
	in.lock()
	defer in.mu.Unlock()
	if s.closed {
		return s.opError("set", net.ErrClosed)
	}
	d.set(in, t, w)
	return nil
}

// SetReadBuffer does nothing; it is there for code that asks the system for
// more.
func (s *udpSocket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing, as SetReadBuffer.
func (s *udpSocket) SetWriteBuffer(int) error { return nil }

// Close frees the port and wakes readers.
func (s *udpSocket) Close() error {
	in := s.host.in
	in.lock()
	defer in.mu.Unlock()
	if s.closed {
		return s.opError("close", net.ErrClosed)
	}
	s.close()
	return nil
}

func (s *udpSocket) close() {
	s.closed = true
	s.queue, s.queued = nil, 0
	s.readBy.stop()
	s.writeBy.stop()
	s.changed.broadcast()
	port := s.local.Port()
	s.host.udp[port] = slices.DeleteFunc(s.host.udp[port], func(t *udpSocket) bool { return t == s })
	if len(s.host.udp[port]) == 0 {
		delete(s.host.udp, port)
	}
}
