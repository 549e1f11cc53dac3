package stream

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"

	"github.com/godwit-net/godwit/transports"
)

const (
	// chunkSize is how much one write carries. It holds any frame, and urgent
	// packets wait for no more than one such write.
	chunkSize = 65536
	// bulkLimit bounds what waits in a queue: a few milliseconds at line rate,
	// yet enough for the writer to never run dry.
	bulkLimit = 512 << 10
	// urgentLimit bounds the urgent packets that wait. They are few and small.
	urgentLimit = 128 << 10
)

// A chunk holds whole frames in buf[start:end].
type chunk struct {
	buf        [chunkSize]byte
	start, end int
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk() *chunk {
	c := chunks.Get().(*chunk)
	c.start, c.end = 0, 0
	return c
}

func (c *chunk) bytes() []byte { return c.buf[c.start:c.end] }

// A lane is a first-in first-out list of frames.
type lane struct {
	chunks []*chunk
	size   int // bytes of frames
}

func (l *lane) append(p transports.Packet, frame int) {
	n := len(l.chunks)
	if n == 0 || chunkSize-l.chunks[n-1].end < frame {
		l.chunks = append(l.chunks, newChunk())
		n++
	}
	c := l.chunks[n-1]
	c.end += len(AppendFrame(c.buf[c.end:c.end], p))
	l.size += frame
}

func (l *lane) pop() *chunk {
	c := l.chunks[0]
	copy(l.chunks, l.chunks[1:]) // a handful at most; keeps the slice's memory
	l.chunks[len(l.chunks)-1] = nil
	l.chunks = l.chunks[:len(l.chunks)-1]
	l.size -= c.end - c.start
	return c
}

// peel moves whole frames to dst while it stays within limit bytes, and tells
// whether the lane is empty now.
func (l *lane) peel(dst []byte, limit int) ([]byte, bool) {
	for len(l.chunks) > 0 {
		c := l.chunks[0]
		for c.start < c.end {
			n := int(binary.BigEndian.Uint16(c.buf[c.start:]))
			if len(dst)+n > limit {
				return dst, false
			}
			dst = append(dst, c.buf[c.start:c.start+n]...)
			c.start += n
			l.size -= n
		}
		chunks.Put(l.pop())
	}
	return dst, true
}

func (l *lane) clear() {
	for len(l.chunks) > 0 {
		chunks.Put(l.pop())
	}
	l.chunks = nil
}

// A queue keeps copies of packets, already framed, for one writer.
type queue struct {
	mu            sync.Mutex
	filled, drawn sync.Cond
	bulk, urgent  lane
	closed        bool
}

func newQueue() *queue {
	q := new(queue)
	q.filled.L, q.drawn.L = &q.mu, &q.mu
	return q
}

// put is Carrier.Send.
func (q *queue) put(ps []transports.Packet) error {
	var tooBig, full bool
	q.mu.Lock()
	defer q.mu.Unlock()
	// Urgent ones first: those after a packet that has to wait must not wait.
	bulk := false
	for _, p := range ps {
		frame := FrameSize(p)
		switch {
		case !p.Urgent:
			bulk = true
		case q.closed:
			return net.ErrClosed
		case len(p.Data) > transports.MaxPacket:
			tooBig = true
		case len(p.Data) == 0:
		case q.urgent.size+frame > urgentLimit:
			full = true
		default:
			q.urgent.append(p, frame)
			q.filled.Signal()
		}
	}
	if bulk {
		for _, p := range ps {
			if p.Urgent || len(p.Data) == 0 {
				continue
			}
			if len(p.Data) > transports.MaxPacket {
				tooBig = true
				continue
			}
			frame := FrameSize(p)
			for !q.closed && q.bulk.size+frame > bulkLimit {
				q.drawn.Wait()
			}
			if q.closed {
				return net.ErrClosed
			}
			q.bulk.append(p, frame)
			q.filled.Signal()
		}
	}
	switch {
	case q.closed:
		return net.ErrClosed
	case tooBig && full:
		return errors.Join(transports.ErrTooBig, transports.ErrFull)
	case tooBig:
		return transports.ErrTooBig
	case full:
		return transports.ErrFull
	}
	return nil
}

// take waits for frames and gives a chunk of them, urgent ones first; nil when
// the queue is closed. The caller puts the chunk back into the pool.
func (q *queue) take() *chunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case q.closed:
			return nil
		case len(q.urgent.chunks) > 0:
			return q.urgent.pop()
		case len(q.bulk.chunks) > 0:
			c := q.bulk.pop()
			q.drawn.Broadcast()
			return c
		}
		q.filled.Wait()
	}
}

// peel takes whole frames without waiting, up to limit bytes of them.
func (q *queue) peel(limit int) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	b, empty := q.urgent.peel(nil, limit)
	if empty {
		b, _ = q.bulk.peel(b, limit)
		q.drawn.Broadcast()
	}
	return b
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.bulk.clear()
	q.urgent.clear()
	q.filled.Broadcast()
	q.drawn.Broadcast()
}
