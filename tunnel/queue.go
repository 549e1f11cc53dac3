package tunnel

import (
	"net"
	"sync"
)

// A Queue holds packets on their way from a Stack to the goroutine that sends
// them. Many goroutines may Put, one takes. Waiting in Take counts as durably
// blocked in a testing/synctest bubble.
type Queue struct {
	maxBytes int

	mu     sync.Mutex
	ready  sync.Cond // signalled when a packet arrives in the empty queue, and by Close
	ring   []Packet  // its length is a power of two
	head   int       // index of the oldest packet
	count  int
	bytes  int
	drops  uint64
	woken  bool
	closed bool
}

// NewQueue makes a queue that holds at most maxBytes of packets, counted by
// Packet.Len. The empty queue takes one packet of any size, so that a bound
// below the largest packet never blocks it for good.
func NewQueue(maxBytes int) *Queue {
	q := &Queue{maxBytes: maxBytes, ring: make([]Packet, 64)}
	q.ready.L = &q.mu
	return q
}

// Put appends p and takes over its reference. It never waits. It returns false
// if the queue is full or closed; p then still belongs to the caller, who
// usually releases it: TCP takes the loss as the sign to slow down.
func (q *Queue) Put(p Packet) bool {
	n := p.Len()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.count > 0 && q.bytes+n > q.maxBytes {
		q.drops++
		return false
	}
	if q.count == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.count)&(len(q.ring)-1)] = p
	q.count++
	q.bytes += n
	if q.count == 1 {
		q.ready.Signal()
	}
	return true
}

// grow doubles the ring; the caller holds mu.
func (q *Queue) grow() {
	ring := make([]Packet, 2*len(q.ring))
	n := copy(ring, q.ring[q.head:])
	copy(ring[n:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}

// Take moves the oldest packets into ps, as many as there are and fit, and
// gives their references to the caller. It waits until there is at least one,
// or until Wake, and may return 0 then.
// After Close it returns net.ErrClosed; for an empty ps it returns 0 at once.
func (q *Queue) Take(ps []Packet) (int, error) {
	if len(ps) == 0 {
		return 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.count == 0 && !q.closed && !q.woken {
		q.ready.Wait()
	}
	q.woken = false
	if q.closed {
		return 0, net.ErrClosed
	}
	n := min(len(ps), q.count)
	for i := range n {
		p := &q.ring[q.head]
		ps[i] = *p
		q.bytes -= p.Len()
		*p = Packet{}
		q.head = (q.head + 1) & (len(q.ring) - 1)
	}
	q.count -= n
	return n, nil
}

// Wake has the Take that waits, or else the next one, return without waiting.
func (q *Queue) Wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.woken = true
	q.ready.Broadcast()
}

// Bytes is the sum of the lengths of the packets that wait.
func (q *Queue) Bytes() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// Dropped counts the packets that Put refused.
func (q *Queue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drops
}

// Close releases what waits and wakes Take. Later calls do nothing.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for ; q.count > 0; q.count-- {
		q.ring[q.head].Release()
		q.ring[q.head] = Packet{}
		q.head = (q.head + 1) & (len(q.ring) - 1)
	}
	q.bytes = 0
	q.ready.Broadcast()
}
