package load

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// Serve is the target: it answers connections until ctx ends, then closes them
// and returns once all are done. It closes ln. The error is nil when ctx ended.
func Serve(ctx context.Context, ln net.Listener) error {
	return serve(ctx, ln, func(_ context.Context, c net.Conn) { answer(c) })
}

// serve calls handle for each connection until ctx ends.
func serve(ctx context.Context, ln net.Listener, handle func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			ln.Close()
			return err
		}
		calls.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			handle(ctx, c)
		})
	}
}

// answer serves one connection. What goes wrong, the client notices.
func answer(c net.Conn) {
	mode, count, err := readRequest(c)
	if err != nil {
		return
	}
	switch mode {
	case Down:
		_ = send(c, blocks(count), nil)
	case Up:
		n, err := swallow(c)
		if err == nil {
			_, _ = c.Write(binary.BigEndian.AppendUint64(nil, n))
		}
	case Echo:
		b := make([]byte, 4<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
}

// send writes n blocks, or fewer when stop is closed; the last says so.
func send(w io.Writer, n uint64, stop <-chan struct{}) error {
	b := newBuffer()
	const most = bufferSize / BlockSize
	for n > most {
		select {
		case <-stop:
			n = 1
			continue
		default:
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		n -= most
	}
	b[(n-1)*BlockSize] = last
	_, err := w.Write(b[:n*BlockSize])
	return err
}

// swallow reads to the end of the last block and counts the bytes.
func swallow(r io.Reader) (uint64, error) {
	var c checker
	b := make([]byte, bufferSize)
	for {
		n, err := r.Read(b)
		done, wrong := c.take(b[:n])
		switch {
		case wrong != nil:
			return c.offset, wrong
		case done:
			return c.offset, nil
		case err == io.EOF:
			return c.offset, io.ErrUnexpectedEOF
		case err != nil:
			return c.offset, err
		}
	}
}
