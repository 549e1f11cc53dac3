// Package relay joins two streams: an application's and the tunnel's at the
// client, the tunnel's and the target's at the server.
package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// copySize suits bulk: what the stack below puts into one segment, and so
	// into one system call (see tunnel's link). A little more would make two.
	copySize = 45 * 1308
	// idleSize is what a direction holds that brings little. Most streams wait
	// most of the time, and there may be many thousands.
	idleSize = 256
)

// HalfClosedIdle ends a connection of which one direction is closed and the
// other brings nothing. An application that died looks like one that only
// finished sending, so it can't be kept for good.
const HalfClosedIdle = 30 * time.Minute

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// A CloseWriter is a stream that can end in one direction alone.
type CloseWriter interface{ CloseWrite() error }

// A Lingerer is a stream that can end with a reset: SetLinger(0), then Close.
type Lingerer interface{ SetLinger(seconds int) error }

// Join copies between two connections until both directions have ended or one
// has failed, and closes both. A direction that ends is passed on by closing
// the other connection for writing only. After a failure a connection to which not
// everything came is reset, if it is a Lingerer: what breaks off must not look like
// what is complete. The reset waits until what was written has arrived, for up to
// a minute.
func Join(a, b net.Conn) {
	var half, endedA, endedB atomic.Bool // endedA: all that a brings has been passed on
	var failed sync.Once
	var wg sync.WaitGroup
	one := func(dst, src net.Conn, ended *atomic.Bool) {
		if err := copyUntilEnd(dst, src, &half); err != nil {
			failed.Do(func() {
				// The other direction stops, whatever it waits for.
				_ = a.SetDeadline(longAgo)
				_ = b.SetDeadline(longAgo)
				wg.Go(func() { finish(a, &endedB) })
				finish(b, &endedA)
			})
			return
		}
		ended.Store(true)
		// From here on the other direction has a deadline.
		half.Store(true)
		_ = dst.SetReadDeadline(time.Now().Add(HalfClosedIdle))
	}
	wg.Go(func() { one(b, a, &endedA) })
	one(a, b, &endedB)
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

var longAgo = time.Unix(1, 0)

// finish closes c after a failure; complete tells whether everything has been
// passed on to it.
func finish(c net.Conn, complete *atomic.Bool) {
	if _, ok := c.(Lingerer); !ok || complete.Load() {
		_ = c.Close()
		return
	}
	awaitDelivered(c)
	Reset(c)
}

// Reset closes a connection so that its peer does not take the end for an orderly
// one, if that can be: c is a Lingerer.
func Reset(c net.Conn) {
	if l, ok := c.(Lingerer); ok {
		_ = l.SetLinger(0)
	}
	_ = c.Close()
}

// copyUntilEnd copies until src ends and then closes dst for writing. With
// half set, each read has HalfClosedIdle to bring something.
func copyUntilEnd(dst, src net.Conn, half *atomic.Bool) error {
	var small []byte
	var large *[copySize]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for again := true; ; {
		if again {
			var done bool
			var err error
			if done, again, err = direct(dst, src, half); done {
				return err
			}
		}
		if small == nil {
			small = make([]byte, idleSize)
		}
		buf := small
		if large != nil {
			buf = large[:]
		}
		n, err := src.Read(buf)
		if n > 0 {
			if half.Load() {
				_ = src.SetReadDeadline(time.Now().Add(HalfClosedIdle))
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case large == nil && n == len(small):
			large = buffers.Get().(*[copySize]byte)
		case large != nil && n < len(small):
			buffers.Put(large)
			large = nil
		}
		switch {
		case errors.Is(err, io.EOF):
			return end(dst, src, half)
		case err != nil:
			return err
		}
	}
}

// end tells the other end of dst that nothing follows from src, which is at its
// end. half tells whether nothing follows from dst either.
func end(dst, src net.Conn, half *atomic.Bool) error {
	// The system tells of a reset once. If that was whoever wrote, a reader finds
	// what looks like the end.
	if !half.Load() && aborted(src) {
		return &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	if cw, ok := dst.(CloseWriter); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported // only a full close can tell the peer
}
