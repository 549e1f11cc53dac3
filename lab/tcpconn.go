package lab

import (
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// A tcpState is a connection's state, as far as the laboratory tells them
// apart (RFC 9293, Section 3.3.2): the states in which an end is closing follow
// from the FINs that were sent and received.
type tcpState uint8

const (
	synSent tcpState = iota + 1
	synReceived
	established
	timeWait
	closed
)

// tcpBuffer is what each end keeps unacknowledged, and unread, in bytes. A
// writer waits when the former is full; the latter is the window.
const tcpBuffer = 256 << 10

// A tcpConn is one end of a connection. Guarded by the Internet's lock.
type tcpConn struct {
	host          *Host
	local, remote netip.AddrPort
	listener      *tcpListener // until it is accepted
	state         tcpState
	made          bool  // the handshake was completed
	err           error // why the connection ended early
	userClosed    bool
	orphaned      bool // closed, and waiting for the peer's FIN
	discard       bool // SetLinger(0)
	deferred      bool // the SYN waits for the first Write
	unproven      bool // accepted with the data of a SYN, and the peer has not answered
	mss           int

	// Sending.
	queue     [][]byte // not sent yet
	queued    int      // bytes in queue
	flight    []*sent  // by number
	flying    int      // bytes in flight
	next      uint64   // number of the next new byte
	edge      uint64   // the peer takes bytes before this one
	finWanted bool
	finSent   bool
	passive   bool // the peer's FIN came before ours left
	sends     uint64
	newest    uint64 // the latest of our sends that is known to have arrived

	// The retransmission timer, RFC 6298.
	srtt, rttvar time.Duration
	backoff      int
	due          time.Time // zero: not running
	planned      time.Time // of the event that looks at due; zero: none
	progress     time.Time // when the peer was last heard of, or the wait for it began

	// Receiving.
	unread     [][]byte
	unreadSize int
	expected   uint64 // number of the next byte
	early      []early
	advertised uint64 // the edge that the peer knows
	peerFin    bool

	changed         signal // readers, writers and the dialer wait for it
	readBy, writeBy deadline
}

// A sent segment that is not acknowledged.
type sent struct {
	seq, end uint64
	payload  []byte
	fin      bool
	at       time.Time
	number   uint64 // of the send, counted over all
	again    bool   // sent more than once
	sacked   bool
	lost     bool
}

// An early segment has arrived before one in front of it.
type early struct {
	seq     uint64
	payload []byte
	fin     bool
}

var _ net.Conn = (*tcpConn)(nil)

func newTCPConn(h *Host, local, remote netip.AddrPort, state tcpState) *tcpConn {
	mtu := defaultMTU
	if i := h.owner(local.Addr()); i != nil {
		mtu = i.network.mtu()
	}
	c := &tcpConn{
		host: h, local: local, remote: remote, state: state,
		mss:      max(mtu-ipHeader(local.Addr())-20, 1),
		progress: time.Now(),
	}
	h.tcp[tuple{local, remote}] = c
	return c
}

// Read waits for bytes, the peer's end of stream, or an error.
func (c *tcpConn) Read(b []byte) (int, error) {
	in := c.host.in
	in.lock()
	defer in.mu.Unlock()
	for {
		switch {
		case c.userClosed:
			return 0, c.opError("read", net.ErrClosed)
		case c.readBy.passed():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case len(c.unread) > 0:
			n := c.take(b)
			in.flush()
			return n, nil
		case c.peerFin:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.opError("read", c.err)
		}
		c.wait()
	}
}

// take fills b from what is unread and tells the peer when there is much more
// room than it knows.
func (c *tcpConn) take(b []byte) int {
	n := 0
	for n < len(b) && len(c.unread) > 0 {
		k := copy(b[n:], c.unread[0])
		n += k
		if k == len(c.unread[0]) {
			c.unread[0] = nil
			c.unread = c.unread[1:]
		} else {
			c.unread[0] = c.unread[0][k:]
		}
	}
	c.unreadSize -= n
	if c.state == established && !c.peerFin && c.window()-c.advertised >= tcpBuffer/4 {
		c.sendACK()
	}
	return n
}

// Write returns when all of b is in the send buffer.
func (c *tcpConn) Write(b []byte) (int, error) {
	in := c.host.in
	in.lock()
	defer in.mu.Unlock()
	for n := 0; ; {
		switch {
		case c.userClosed:
			return n, c.opError("write", net.ErrClosed)
		case c.writeBy.passed():
			return n, c.opError("write", os.ErrDeadlineExceeded)
		case c.err != nil:
			return n, c.opError("write", c.err)
		case c.finWanted:
			return n, c.opError("write", syscall.EPIPE)
		}
		if k := min(len(b)-n, tcpBuffer-c.queued-c.flying); k > 0 {
			c.queue = append(c.queue, slices.Clone(b[n:n+k]))
			c.queued += k
			n += k
			if c.deferred {
				c.sendEarly()
			}
			c.output()
			in.flush()
		}
		if n == len(b) {
			return n, nil
		}
		c.wait()
	}
}

// wait lets go of the lock until something changes.
func (c *tcpConn) wait() {
	changed := c.changed.wait()
	c.host.in.mu.Unlock()
	<-changed
	c.host.in.lock()
}

// CloseWrite ends the stream to the peer, after all that was written.
func (c *tcpConn) CloseWrite() error {
	in := c.host.in
	in.lock()
	defer in.mu.Unlock()
	defer in.flush()
	switch {
	case c.userClosed:
		return c.opError("close", net.ErrClosed)
	case c.err != nil:
		return c.opError("close", c.err)
	}
	c.finWanted = true
	c.output()
	c.changed.broadcast()
	return nil
}

// SetLinger with 0 has Close reset the connection and drop what was not sent;
// other values have no effect.
func (c *tcpConn) SetLinger(seconds int) error {
	c.host.in.lock()
	defer c.host.in.mu.Unlock()
	c.discard = seconds == 0
	return nil
}

// Close returns at once. What was written is still sent, for a minute at most
// while the peer is silent. With bytes unread, or after SetLinger(0), the
// connection is reset instead.
func (c *tcpConn) Close() error {
	in := c.host.in
	in.lock()
	defer in.mu.Unlock()
	defer in.flush()
	if c.userClosed {
		return c.opError("close", net.ErrClosed)
	}
	c.userClosed = true
	c.readBy.stop()
	c.writeBy.stop()
	if c.state == synSent {
		c.fail(net.ErrClosed)
		return nil
	}
	// "If such a host issues a CLOSE call while received data is still pending
	// in TCP, [...] its TCP SHOULD send a RST to show that data was lost." RFC
	// 1122, Section 4.2.2.13.
	if c.discard || c.unreadSize > 0 {
		c.abort(net.ErrClosed)
		return nil
	}
	c.finWanted = true
	c.progress = time.Now()
	c.output()
	c.ended()
	c.changed.broadcast()
	return nil
}

// LocalAddr is a *net.TCPAddr.
func (c *tcpConn) LocalAddr() net.Addr { return tcpAddr(c.local) }

// RemoteAddr is a *net.TCPAddr.
func (c *tcpConn) RemoteAddr() net.Addr { return tcpAddr(c.remote) }

// SetDeadline sets both deadlines.
func (c *tcpConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets when reads fail.
func (c *tcpConn) SetReadDeadline(t time.Time) error { return c.set(&c.readBy, t) }

// SetWriteDeadline sets when writes fail; part of the bytes may be on the way.
func (c *tcpConn) SetWriteDeadline(t time.Time) error { return c.set(&c.writeBy, t) }

func (c *tcpConn) set(d *deadline, t time.Time) error {
	in := c.host.in
	in.lock()
	defer in.mu.Unlock()
	if c.userClosed {
		return c.opError("set", net.ErrClosed)
	}
	d.set(in, t, &c.changed)
	return nil
}

func (c *tcpConn) opError(op string, err error) error {
	return opError(op, "tcp", c.LocalAddr(), c.RemoteAddr(), err)
}
