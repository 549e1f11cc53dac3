package lab

import (
	"context"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// TCP Fast Open without cookies (RFC 7413), as Linux has it with tcp_fastopen = 3 and
// TCP_FASTOPEN_NO_COOKIE at both ends.

var (
	_ transports.EarlyNetwork = (*Host)(nil)
	_ transports.Handshaking  = (*tcpConn)(nil)
)

// SetFastOpen has all hosts send and accept data in SYNs from now on. By default
// none does.
func (in *Internet) SetFastOpen(on bool) {
	in.lock()
	defer in.mu.Unlock()
	in.fastOpen = on
}

// DialTCPEarly implements transports.EarlyNetwork. Without Fast Open it is DialTCP.
func (h *Host) DialTCPEarly(ctx context.Context, local netip.Addr, remote netip.AddrPort) (transports.EarlyConn, error) {
	h.in.lock()
	on := h.in.fastOpen
	h.in.mu.Unlock()
	if !on {
		c, err := h.dialTCP(ctx, local, remote)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	remote = unmap(remote)
	if ctx.Err() != nil {
		return nil, contextError(ctx, "dial", "tcp", tcpAddr(remote))
	}
	h.in.lock()
	defer h.in.mu.Unlock()
	c, err := h.newOutbound(local, remote)
	if err != nil {
		return nil, opError("dial", "tcp", nil, tcpAddr(remote), err)
	}
	c.deferred = true
	return c, nil
}

// Connected waits for the end of the handshake.
func (c *tcpConn) Connected() error {
	c.host.in.lock()
	defer c.host.in.mu.Unlock()
	for c.state == synSent {
		c.wait()
	}
	if !c.made {
		return c.opError("connect", c.err)
	}
	return nil
}

// Handshaking implements transports.Handshaking.
func (c *tcpConn) Handshaking() bool {
	c.host.in.lock()
	defer c.host.in.mu.Unlock()
	return c.unproven
}

// sendEarly sends the SYN with what fits of the first write.
func (c *tcpConn) sendEarly() {
	c.deferred, c.progress = false, time.Now()
	n := min(c.mss, c.queued)
	c.sends++
	s := &sent{end: uint64(n), payload: c.dequeue(n), at: time.Now(), number: c.sends}
	c.flight, c.flying, c.next = append(c.flight, s), n, s.end
	c.emit(segment{syn: true, mss: c.mss}, s.payload)
	c.start()
}

// acceptEarly takes the data of a SYN and lets the connection go on at once.
func (c *tcpConn) acceptEarly(payload []byte) {
	c.accept(early{payload: payload})
	c.emit(segment{syn: true, mss: c.mss}, nil)
	c.state, c.made, c.unproven = established, true, true
	c.listener.ready = append(c.listener.ready, c)
	c.listener.changed.broadcast()
}

// answered takes the answer to a SYN that carried data: what was not acknowledged
// goes out again behind it.
func (c *tcpConn) answered(s *segment) {
	c.acknowledged(s)
	for _, f := range c.flight {
		f.again = true
		c.sendData(f)
	}
	if len(c.flight) > 0 {
		c.start()
	}
	c.output()
}
