package egress

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// copySize suits bulk: the stack below hands over up to 64 KiB at a time.
const copySize = 64 << 10

// halfClosedIdle ends a connection of which one direction is closed and the
// other brings nothing. An application that died looks like one that only
// finished sending, so it can't be kept for good.
const halfClosedIdle = 30 * time.Minute

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

type closeWriter interface{ CloseWrite() error }

// relay copies between two connections until both directions have ended or one
// has failed, and closes both. A direction that ends is passed on by closing
// the other connection for writing only.
func relay(a, b net.Conn) {
	var half atomic.Bool
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		if copyUntilEnd(dst, src, &half) != nil {
			_ = a.Close()
			_ = b.Close()
			return
		}
		// From here on the other direction has a deadline.
		half.Store(true)
		_ = dst.SetReadDeadline(time.Now().Add(halfClosedIdle))
	}
	wg.Go(func() { one(b, a) })
	one(a, b)
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

// copyUntilEnd copies until src ends and then closes dst for writing. With
// half set, each read has halfClosedIdle to bring something.
func copyUntilEnd(dst, src net.Conn, half *atomic.Bool) error {
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if half.Load() {
				_ = src.SetReadDeadline(time.Now().Add(halfClosedIdle))
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if cw, ok := dst.(closeWriter); ok {
				return cw.CloseWrite()
			}
			return errors.ErrUnsupported // only a full close can tell the peer
		case err != nil:
			return err
		}
	}
}
