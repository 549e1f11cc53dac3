package websocket

import (
	"io"
	"net"
	"sync"
)

// A coalescer is the client's side of the connection after the upgrade. The
// library writes a message in pieces of 4 KiB, each of which would be a segment
// and a TLS record of its own; here they become one write.
type coalescer struct {
	io.Reader
	conn net.Conn

	mu   sync.Mutex
	held bool
	buf  []byte
}

// hold keeps what is written until flush.
func (c *coalescer) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

func (c *coalescer) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

// Write may come from the writer or, with a pong, from the reader.
func (c *coalescer) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		c.buf = append(c.buf, b...)
		return len(b), nil
	}
	return c.conn.Write(b)
}

func (c *coalescer) Close() error { return c.conn.Close() }
