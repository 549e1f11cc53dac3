package lab

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A tuple names a TCP connection at one of its hosts.
type tuple struct{ local, remote netip.AddrPort }

// backlog is how many connections wait to be accepted.
const backlog = 128

// A tcpListener is a listening socket. Guarded by the Internet's lock.
type tcpListener struct {
	host    *Host
	local   netip.AddrPort
	closed  bool
	ready   []*tcpConn
	changed signal
	by      deadline
}

var _ net.Listener = (*tcpListener)(nil)

func (h *Host) dialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (*tcpConn, error) {
	remote = unmap(remote)
	if ctx.Err() != nil {
		return nil, contextError(ctx, "dial", "tcp", tcpAddr(remote))
	}
	h.in.lock()
	c, err := h.newOutbound(local, remote)
	if err == nil {
		c.sendSYN()
	}
	h.in.flush()
	for err == nil && c.state == synSent {
		changed := c.changed.wait()
		h.in.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		h.in.lock()
		if c.state == synSent && ctx.Err() != nil {
			c.fail(net.ErrClosed)
			h.in.mu.Unlock()
			return nil, contextError(ctx, "dial", "tcp", tcpAddr(remote))
		}
	}
	defer h.in.mu.Unlock()
	// A connection that was made and reset at once was made.
	if err == nil && !c.made {
		err = c.err
	}
	if err != nil {
		return nil, opError("dial", "tcp", nil, tcpAddr(remote), err)
	}
	return c, nil
}

// newOutbound makes a connection whose SYN is to be sent.
func (h *Host) newOutbound(local netip.Addr, remote netip.AddrPort) (*tcpConn, error) {
	if h.in.closed {
		return nil, net.ErrClosed
	}
	source, err := h.bindAddr(local, remote.Addr())
	if err != nil {
		return nil, err
	}
	if remote.Port() == 0 {
		return nil, syscall.EADDRNOTAVAIL
	}
	port, err := h.ephemeral(func(port uint16) bool {
		from := netip.AddrPortFrom(source, port)
		return h.tcp[tuple{from, remote}] != nil || h.listener(from) != nil
	})
	if err != nil {
		return nil, err
	}
	return newTCPConn(h, netip.AddrPortFrom(source, port), remote, synSent), nil
}

func (h *Host) listenTCP(ctx context.Context, local netip.AddrPort) (*tcpListener, error) {
	local = netip.AddrPortFrom(wildcard(local.Addr()), local.Port())
	if ctx.Err() != nil {
		return nil, contextError(ctx, "listen", "tcp", tcpAddr(local))
	}
	h.in.lock()
	defer h.in.mu.Unlock()
	l, err := h.addListener(local)
	if err != nil {
		return nil, opError("listen", "tcp", nil, tcpAddr(local), err)
	}
	return l, nil
}

func (h *Host) addListener(local netip.AddrPort) (*tcpListener, error) {
	if h.in.closed {
		return nil, net.ErrClosed
	}
	if !local.Addr().IsUnspecified() && h.owner(local.Addr()) == nil {
		return nil, syscall.EADDRNOTAVAIL
	}
	used := func(port uint16) bool {
		for at := range h.listen {
			if at.Port() == port && (covers(at.Addr(), local.Addr()) || covers(local.Addr(), at.Addr())) {
				return true
			}
		}
		return false
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
	l := &tcpListener{host: h, local: local}
	h.listen[local] = l
	return l, nil
}

// listener finds who listens at a.
func (h *Host) listener(a netip.AddrPort) *tcpListener {
	if l := h.listen[a]; l != nil {
		return l
	}
	if a.Addr().Is4() {
		if l := h.listen[netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())]; l != nil {
			return l
		}
	}
	return h.listen[netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())]
}

// receiveTCP finds the connection or the listener for p, which has arrived.
func (h *Host) receiveTCP(p *packet) {
	if c := h.tcp[tuple{p.dst, p.src}]; c != nil {
		h.in.trace(p, h.name, Delivered, "")
		c.receive(p)
		return
	}
	if l := h.listener(p.dst); l != nil && p.seg.syn && !p.seg.ack {
		if len(l.ready) >= backlog {
			h.in.drop(p, h.name, BySocket)
			return
		}
		h.in.trace(p, h.name, Delivered, "")
		c := newTCPConn(h, p.dst, p.src, synReceived)
		c.listener = l
		c.mss = min(c.mss, p.seg.mss)
		c.edge = p.seg.edge
		if h.in.fastOpen && len(p.payload) > 0 {
			c.acceptEarly(p.payload)
			return
		}
		c.sendSYN()
		return
	}
	h.in.drop(p, h.name, ByPort)
	// "If the connection does not exist (CLOSED), then a reset is sent in
	// response to any incoming segment except another reset." RFC 9293,
	// Section 3.5.2.
	if !p.seg.rst {
		_ = h.send(h.in.reset(p.dst, p.src))
	}
}

// Accept waits for a connection; it comes with the third segment of the
// handshake, 1.5 round trips after the peer began.
func (l *tcpListener) Accept() (net.Conn, error) {
	in := l.host.in
	in.lock()
	defer in.mu.Unlock()
	for {
		switch {
		case l.closed:
			return nil, opError("accept", "tcp", nil, l.Addr(), net.ErrClosed)
		case l.by.passed():
			return nil, opError("accept", "tcp", nil, l.Addr(), os.ErrDeadlineExceeded)
		case len(l.ready) > 0:
			c := l.ready[0]
			l.ready[0] = nil
			l.ready = l.ready[1:]
			c.listener = nil
			return c, nil
		}
		changed := l.changed.wait()
		in.mu.Unlock()
		<-changed
		in.lock()
	}
}

// SetDeadline sets when Accept fails.
func (l *tcpListener) SetDeadline(t time.Time) error {
	l.host.in.lock()
	defer l.host.in.mu.Unlock()
	if l.closed {
		return opError("set", "tcp", nil, l.Addr(), net.ErrClosed)
	}
	l.by.set(l.host.in, t, &l.changed)
	return nil
}

// Close stops listening and resets what was not accepted.
func (l *tcpListener) Close() error {
	in := l.host.in
	in.lock()
	defer in.mu.Unlock()
	defer in.flush()
	if l.closed {
		return opError("close", "tcp", nil, l.Addr(), net.ErrClosed)
	}
	l.close()
	return nil
}

func (l *tcpListener) close() {
	l.closed = true
	delete(l.host.listen, l.local)
	for _, c := range l.ready {
		c.abort(net.ErrClosed)
	}
	l.ready = nil
	l.by.stop()
	l.changed.broadcast()
}

// Addr is a *net.TCPAddr.
func (l *tcpListener) Addr() net.Addr { return tcpAddr(l.local) }
