// Package relay joins two streams: an application's and the tunnel's at the
// client, the tunnel's and the target's at the server.
package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
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
// the other connection for writing only. One that fails before it has brought
// anything resets the other connection, if that is a Lingerer: a stream that was
// never there must not look like an empty one.
func Join(a, b net.Conn) {
	var half atomic.Bool
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		if n, err := copyUntilEnd(dst, src, &half); err != nil {
			if l, ok := dst.(Lingerer); ok && n == 0 {
				_ = l.SetLinger(0)
			}
			_ = a.Close()
			_ = b.Close()
			return
		}
		// From here on the other direction has a deadline.
		half.Store(true)
		_ = dst.SetReadDeadline(time.Now().Add(HalfClosedIdle))
	}
	wg.Go(func() { one(b, a) })
	one(a, b)
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

// copyUntilEnd copies until src ends and then closes dst for writing. With
// half set, each read has HalfClosedIdle to bring something. It gives how many
// bytes it has passed on.
func copyUntilEnd(dst, src net.Conn, half *atomic.Bool) (total int64, err error) {
	var small []byte
	var large *[copySize]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for again := true; ; {
		if again {
			var n int64
			var done bool
			if n, done, again, err = direct(dst, src, half); done {
				return total + n, err
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
				return total, err
			}
			total += int64(n)
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
			return total, end(dst)
		case err != nil:
			return total, err
		}
	}
}

// end tells the other end of dst that nothing follows.
func end(dst net.Conn) error {
	if cw, ok := dst.(CloseWriter); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported // only a full close can tell the peer
}
