package tunnel

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A conn is a TCP connection of a Stack, with the errors of package net.
type conn struct {
	ep     tcpip.Endpoint
	stack  *Stack
	closed atomic.Bool

	in    half
	slice tcpip.SliceWriter // of Read
	drain drain             // of Drain

	out    half
	bytes  bytes.Reader // of Write
	source source       // of Feed
	ahead  ahead
}

// A half is what one direction of a conn waits with.
type half struct {
	mu    sync.Mutex // held while one call reads or writes
	entry waiter.Entry
	wake  chan struct{} // something may have changed

	deadline sync.Mutex // protects timer and set
	timer    *time.Timer
	set      uint64 // how often a deadline was set
	expired  atomic.Bool
}

func newConn(s *Stack, wq *waiter.Queue, ep tcpip.Endpoint) *conn {
	c := &conn{ep: ep, stack: s}
	// For good: an event that comes before anybody waits is kept by the channel.
	c.in.entry, c.in.wake = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	c.out.entry, c.out.wake = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	if e, ok := ep.(*tcp.Endpoint); ok {
		// Nobody else sends by it meanwhile.
		e.LockUser()
		e.SetOwner(c)
		e.UnlockUser()
	}
	wq.EventRegister(&c.in.entry)
	wq.EventRegister(&c.out.entry)
	return c
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.slice = b
	defer func() { c.slice = nil }()
	return c.receive(&c.slice)
}

// Drain is Read that gives what has come to w as it lies in the stack's memory,
// which is w's until Write returns. It waits until there is something. Write
// must not wait: it takes what it can, and an error for what it did not take
// ends Drain, which gives that error if nothing was taken.
func (c *conn) Drain(w io.Writer) (int, error) {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.drain.w = w
	n, err := c.receive(&c.drain)
	if err == nil && n == 0 {
		err = c.drain.err
	}
	c.drain = drain{}
	return n, err
}

// drain keeps the error that gVisor would not pass on.
type drain struct {
	w   io.Writer
	err error
}

func (d *drain) Write(b []byte) (n int, err error) {
	n, err = d.w.Write(b)
	d.err = err
	return n, err
}

// receive has w take what has come. It gives 0 without an error if w took nothing.
func (c *conn) receive(w io.Writer) (int, error) {
	for {
		if err := c.ended(&c.in); err != nil {
			return 0, c.failed("read", err)
		}
		res, terr := c.ep.Read(w, tcpip.ReadOptions{})
		switch terr.(type) {
		case nil:
			if res.Count > 0 {
				c.ep.ModerateRecvBuf(res.Count)
			}
			return res.Count, nil
		case *tcpip.ErrWouldBlock:
			<-c.in.wake
		case *tcpip.ErrBadBuffer: // w's error
			return 0, nil
		case *tcpip.ErrClosedForReceive:
			if c.gone() {
				return 0, c.failed("read", net.ErrClosed)
			}
			return 0, io.EOF
		default:
			return 0, c.failed("read", wrap(terr))
		}
	}
}

func (c *conn) Write(b []byte) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	defer c.bytes.Reset(nil)
	done := 0
	for done < len(b) {
		c.bytes.Reset(b[done:])
		n, err := c.send(&c.bytes)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Feed is Write that has r put the bytes where the stack keeps them. It waits
// until there is room, and until most of what was written has left, and then reads as many of n bytes as there is room for.
// r must have them and not wait. If it has less, they are lost, and Feed gives
// its error, or io.ErrUnexpectedEOF.
func (c *conn) Feed(r io.Reader, n int) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if err := c.waitAhead(); err != nil {
		return 0, err
	}
	c.source = source{r: r, left: n}
	defer func() { c.source = source{} }()
	done, err := c.send(&c.source)
	switch {
	case c.source.err != nil:
		err = c.source.err
	case err == nil && n-c.source.left != done:
		// Only another writer could have taken the room meanwhile.
		err = c.failed("write", io.ErrShortWrite)
	}
	return done, err
}

// A source is the payload of Feed.
type source struct {
	r    io.Reader
	left int
	err  error // why there is less
}

func (s *source) Len() int { return s.left }

// Read gives io.EOF after the last byte. gVisor would wait for good for one that
// is missing, so that is another error.
func (s *source) Read(b []byte) (int, error) {
	switch {
	case s.err != nil:
		return 0, s.err
	case s.left == 0:
		return 0, io.EOF
	case len(b) == 0:
		return 0, nil
	}
	n, err := s.r.Read(b[:min(len(b), s.left)])
	s.left -= n
	switch {
	case n > 0:
	case err == nil || err == io.EOF:
		s.err = io.ErrUnexpectedEOF
	default:
		s.err = err
	}
	return n, s.err
}

// send gives the stack as much of p as it has room for, once it has any.
func (c *conn) send(p tcpip.Payloader) (int, error) {
	for {
		if err := c.ended(&c.out); err != nil {
			return 0, c.failed("write", err)
		}
		n, terr := c.ep.Write(p, tcpip.WriteOptions{})
		switch terr.(type) {
		case nil:
			c.ahead.bytes.Add(n)
			return int(n), nil
		case *tcpip.ErrWouldBlock:
			<-c.out.wake
		default:
			return 0, c.failed("write", wrap(terr))
		}
	}
}

// ended tells why nothing may be done in one direction any more.
func (c *conn) ended(h *half) error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case h.expired.Load():
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *conn) gone() bool { return c.closed.Load() || c.stack.isClosed() }

// failed gives an error as package net does. What this end has closed is the
// reason of any other error.
func (c *conn) failed(op string, err error) error {
	if c.gone() {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Close lets what was written go out in the background and wakes Read and Write.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return &net.OpError{Op: "close", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: net.ErrClosed}
	}
	c.ep.Close()
	for _, h := range []*half{&c.in, &c.out} {
		h.setDeadline(time.Time{}) // a timer would keep the connection in memory
		h.notify()
	}
	return nil
}

// CloseRead has what still comes dropped, and Read give io.EOF.
func (c *conn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

// CloseWrite ends what is sent.
func (c *conn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

func (c *conn) shutdown(how tcpip.ShutdownFlags) error {
	if terr := c.ep.Shutdown(how); terr != nil {
		return c.failed("close", wrap(terr))
	}
	return nil
}

// SetLinger is as net.TCPConn's: with zero seconds Close drops what was not
// sent yet and resets the connection, so that the peer does not take the end
// for an orderly one.
func (c *conn) SetLinger(seconds int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: seconds >= 0, Timeout: time.Duration(seconds) * time.Second})
	return nil
}

// Delivered tells whether the peer has acknowledged all of what was written, or
// will never do so. It leaves the connection without room for more, so it is for
// when all is written.
func (c *conn) Delivered() bool {
	c.ep.SocketOptions().SetSendBufferSize(1, false)
	return c.ep.Readiness(waiter.WritableEvents) != 0
}

func (c *conn) LocalAddr() net.Addr  { return address(c.ep.GetLocalAddress()) }
func (c *conn) RemoteAddr() net.Addr { return address(c.ep.GetRemoteAddress()) }

// address is nil if there is none.
func address(a tcpip.FullAddress, terr tcpip.Error) net.Addr {
	if terr != nil {
		return nil
	}
	return &net.TCPAddr{IP: net.IP(a.Addr.AsSlice()), Port: int(a.Port)}
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(t)
	c.out.setDeadline(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(t)
	return nil
}

func (h *half) setDeadline(t time.Time) {
	h.deadline.Lock()
	defer h.deadline.Unlock()
	h.set++
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	wait := time.Until(t)
	if t.IsZero() || wait > 0 {
		h.expired.Store(false)
	}
	switch {
	case t.IsZero():
	case wait <= 0:
		h.expired.Store(true)
		h.notify()
	default:
		set := h.set
		h.timer = time.AfterFunc(wait, func() {
			h.deadline.Lock()
			defer h.deadline.Unlock()
			if h.set == set {
				h.expired.Store(true)
				h.notify()
			}
		})
	}
}

// notify wakes who waits, or will.
func (h *half) notify() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
