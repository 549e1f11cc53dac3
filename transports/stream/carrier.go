package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// A Stream is what a Carrier runs on. One with a method NetConn gives the
// connection beneath, for its rate to be watched.
type Stream interface {
	// WriteFrames writes whole frames, at most 64 KiB of them. It is called
	// from one goroutine.
	WriteFrames(b []byte) error
	// ReadFrames feeds r until the stream ends.
	ReadFrames(r *Reader) error
	// Close ends WriteFrames and ReadFrames at once. It is called once.
	Close() error
}

// A Carrier implements transports.Carrier over a Stream. Packets may be sent
// before Run, which is when the stream is given; they wait in the queue.
type Carrier struct {
	name    transports.Name
	desc    transports.Description
	handler transports.Handler
	queue   *queue
	early   transports.Handshaking // nil: the handshake was over from the beginning

	admitted atomic.Bool

	mu        sync.Mutex
	stream    Stream
	cause     error       // why it ended; nil while it lives
	probation *time.Timer // nil: nobody has to be trusted
	trusted   bool
}

// ProbationTime is how long a server keeps a stream whose peer has not shown
// that it holds keys.
const ProbationTime = 30 * time.Second

// ErrProbation ends the carrier of a peer that did not show that it holds keys.
var ErrProbation = errors.New("no authentic packet in time")

// New makes a carrier that waits for its stream.
func New(name transports.Name, d transports.Description, h transports.Handler) *Carrier {
	d.Encapsulation = name
	return &Carrier{name: name, desc: d, handler: h, queue: newQueue()}
}

// Probation has the carrier end after ProbationTime unless Trust is called
// before: a stranger's stream costs a descriptor and buffers.
func (c *Carrier) Probation() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil && c.probation == nil {
		c.probation = time.AfterFunc(ProbationTime, func() { c.end(ErrProbation) })
	}
}

// Trust implements transports.Trusted.
func (c *Carrier) Trust() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trusted = true
	if c.probation != nil {
		c.probation.Stop()
	}
}

// Trusted tells whether Trust was called.
func (c *Carrier) Trusted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trusted
}

// Admit implements transports.Admitting.
func (c *Carrier) Admit() { c.admitted.Store(true) }

// Admitted implements transports.Admitting.
func (c *Carrier) Admitted() bool { return c.admitted.Load() }

// Name implements transports.Carrier.
func (c *Carrier) Name() transports.Name { return c.name }

// Send implements transports.Carrier.
func (c *Carrier) Send(ps []transports.Packet) error {
	if err := c.queue.put(ps); err != nil {
		return fmt.Errorf("send over %s: %w", c.name, err)
	}
	return nil
}

// MTU implements transports.Carrier.
func (c *Carrier) MTU() int { return transports.MaxPacket }

// Describe implements transports.Carrier.
func (c *Carrier) Describe() transports.Description { return c.desc }

// Validated implements transports.Carrier: the handshake of TCP has shown that
// the peer receives at its address, once it is over.
func (c *Carrier) Validated() bool { return c.early == nil || !c.early.Handshaking() }

// Handshaking says which accepted connection is beneath. It is called before Run.
func (c *Carrier) Handshaking(conn net.Conn) {
	if h, ok := Innermost(conn).(transports.Handshaking); ok {
		c.early = h
	}
}

// Close implements transports.Carrier.
func (c *Carrier) Close() error {
	c.end(net.ErrClosed)
	return nil
}

// Deliver gives the handler packets that came outside of the stream.
func (c *Carrier) Deliver(ps []transports.Packet) {
	if len(ps) > 0 && c.Alive() {
		c.handler.Receive(c, ps)
	}
}

// Collected takes frames that were sent before Run, whole ones of at most limit
// bytes together, for them to travel outside of the stream.
func (c *Carrier) Collected(limit int) []byte { return c.queue.peel(limit) }

// Alive is false once the carrier has ended.
func (c *Carrier) Alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause == nil
}

// Run carries packets over s until either ends, and then tells the handler. It
// closes s.
func (c *Carrier) Run(s Stream) {
	c.mu.Lock()
	ended := c.cause != nil
	if !ended {
		c.stream = s
	}
	c.mu.Unlock()
	if ended {
		s.Close()
		c.Fail(net.ErrClosed)
		return
	}

	var writer sync.WaitGroup
	writer.Go(func() {
		p := newPace(s, time.Now())
		for {
			chunk := c.queue.take()
			if chunk == nil {
				return
			}
			p.writes(len(chunk.bytes()), time.Now())
			err := s.WriteFrames(chunk.bytes())
			chunks.Put(chunk)
			if err != nil {
				c.end(err)
				return
			}
		}
	})
	r := Reader{deliver: func(ps []transports.Packet) {
		// A handler that closes the carrier sees nothing more of it.
		if c.Alive() {
			c.handler.Receive(c, ps)
		}
	}}
	err := s.ReadFrames(&r)
	r.release()
	if err == nil {
		err = io.EOF
	}
	c.end(err)
	writer.Wait()
	c.told()
}

// Fail ends a carrier for which there is no stream.
func (c *Carrier) Fail(err error) {
	c.end(err)
	c.told()
}

func (c *Carrier) told() {
	c.mu.Lock()
	err := c.cause
	c.mu.Unlock()
	c.handler.Closed(c, fmt.Errorf("%s carrier to %s: %w", c.name, c.desc.Destination, err))
}

func (c *Carrier) end(err error) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.cause = err
	if c.probation != nil {
		c.probation.Stop()
	}
	s := c.stream
	c.mu.Unlock()
	c.queue.close()
	if s != nil {
		s.Close()
	}
}

// WriteFirst writes b in one piece. Cancelling ctx closes conn and gives the
// context's error.
func WriteFirst(ctx context.Context, conn net.Conn, b []byte) error {
	return Within(ctx, conn, func() error {
		_, err := conn.Write(b)
		return err
	})
}

// Within calls f, which uses conn, and closes conn when ctx is cancelled
// meanwhile or f fails.
func Within(ctx context.Context, conn net.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := f()
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
	}
	return err
}
