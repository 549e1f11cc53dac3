package socks

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/tunnel/relay"
)

// Begin is Connect without the wait: it sends greeting and request and gives a
// connection at once. What is written to it follows the request in the same
// flight; its first Read waits for the replies and fails as Connect does if
// they are bad. answered, if not nil, is called once with what came: nil or
// that error.
func Begin(conn net.Conn, address string, answered func(error)) (net.Conn, error) {
	request, err := AppendConnect(nil, address)
	if err == nil {
		_, err = conn.Write(request)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return &begun{Conn: conn, address: address, answered: answered}, nil
}

// begun is a connection whose replies have not been read yet.
type begun struct {
	net.Conn
	address  string
	answered func(error)
	once     sync.Once
	err      error
	passes   atomic.Bool // the replies were read and are good
	state    atomic.Int32
	reset    atomic.Bool // Close drops what was not sent
}

// What has been done with a begun connection.
const (
	unread = iota
	asked
	closed
)

// repliesTime is how long a connection that is closed already waits for the
// replies.
const repliesTime = time.Minute

func (b *begun) Read(p []byte) (int, error) {
	if !b.state.CompareAndSwap(unread, asked) && b.state.Load() == closed {
		return 0, net.ErrClosed
	}
	b.replies()
	if b.err != nil {
		return 0, b.err
	}
	return b.Conn.Read(p)
}

// replies reads them, once.
func (b *begun) replies() {
	b.once.Do(func() {
		if err := readReplies(b.Conn); err != nil {
			b.err = fmt.Errorf("connect to %s: %w", b.address, err)
		}
		b.passes.Store(b.err == nil)
		if b.answered != nil {
			b.answered(b.err)
		}
	})
}

// Close lets what was written go out in the background. If nothing has been read,
// it reads the replies there first: with something unread the stack would reset
// the connection, and drop the rest.
func (b *begun) Close() error {
	cw, ok := b.Conn.(relay.CloseWriter)
	if !ok || b.reset.Load() || !b.state.CompareAndSwap(unread, closed) {
		return b.Conn.Close()
	}
	_ = b.Conn.SetDeadline(time.Now().Add(repliesTime))
	if err := cw.CloseWrite(); err != nil {
		return errors.Join(err, b.Conn.Close())
	}
	go func() {
		b.replies()
		_ = b.Conn.Close()
	}()
	return nil
}

// Passes gives the connection itself once the replies were read.
func (b *begun) Passes() net.Conn {
	if !b.passes.Load() {
		return nil
	}
	return b.Conn
}

// SetLinger passes on.
func (b *begun) SetLinger(seconds int) error {
	b.reset.Store(seconds == 0)
	if l, ok := b.Conn.(relay.Lingerer); ok {
		return l.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

// CloseWrite ends what is sent.
func (b *begun) CloseWrite() error {
	if cw, ok := b.Conn.(relay.CloseWriter); ok {
		return cw.CloseWrite()
	}
	return b.Conn.Close()
}
