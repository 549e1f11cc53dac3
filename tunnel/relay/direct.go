package relay

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A Passing is a connection around another one. Passes gives that one once
// reads and writes go to it unchanged, and nil until then.
type Passing interface{ Passes() net.Conn }

// A Feeder is a stream that has bytes written to the memory it keeps them in,
// as those of package tunnel.
type Feeder interface {
	// Feed waits for room and has r put up to n bytes there. r has them, and
	// does not wait.
	Feed(r io.Reader, n int) (int, error)
}

// A Drainer is a stream that has what came read where it lies.
type Drainer interface {
	// Drain waits for something to read and has w take it. w does not wait: it
	// gives an error when it takes no more, which Drain gives back only if w
	// took nothing at all.
	Drain(w io.Writer) (int, error)
}

// under finds the connection that c leads to; pending says that it may be
// another one later.
func under(c net.Conn) (below net.Conn, pending bool) {
	for {
		p, ok := c.(Passing)
		if !ok {
			return c, false
		}
		next := p.Passes()
		if next == nil {
			return c, true
		}
		c = next
	}
}

// direct copies as copyUntilEnd does, without a buffer in between, if one of
// the two is a socket of the system and the other one can do it. Otherwise done is
// false and nothing was copied; again says that it may be worth another try.
func direct(dst, src net.Conn, half *atomic.Bool) (done, again bool, err error) {
	to, later1 := under(dst)
	from, later2 := under(src)
	if f, ok := to.(Feeder); ok && !later2 {
		if s := newSocket(from); s != nil {
			return true, false, feed(dst, f, src, s, half)
		}
	}
	if d, ok := from.(Drainer); ok && !later1 {
		if s := newSocket(to); s != nil {
			return true, false, drain(dst, s, src, d, half)
		}
	}
	return false, later1 || later2, nil
}

// feed copies from a socket.
func feed(dst net.Conn, f Feeder, src net.Conn, s *socket, half *atomic.Bool) error {
	for {
		ready, err := s.wait()
		switch {
		case err != nil:
			return err
		case ready == 0:
			return end(dst, src, half)
		case half.Load():
			_ = src.SetReadDeadline(time.Now().Add(HalfClosedIdle))
		}
		if _, err := f.Feed(s, min(ready, copySize)); err != nil {
			return err
		}
	}
}

// drain copies to a socket.
func drain(dst net.Conn, s *socket, src net.Conn, d Drainer, half *atomic.Bool) error {
	for {
		s.budget = drainSize
		_, err := d.Drain(s)
		switch {
		case err == errFull:
			if err := s.waitRoom(); err != nil {
				return err
			}
		case err == io.EOF:
			return end(dst, src, half)
		case err != nil:
			return err
		case half.Load():
			_ = src.SetReadDeadline(time.Now().Add(HalfClosedIdle))
		}
	}
}
