package tunnel

import (
	"net"
	"slices"
	"sync"

	"github.com/godwit-net/godwit/clock"
)

// takeBytes bounds what one Take gives: about what goes out in one system
// call. With more, a packet that must not wait would wait behind it.
const takeBytes = 64 << 10

// A Queue holds packets on their way from a Stack to the goroutine that sends
// them. Many goroutines may Put, one takes. Waiting in Take counts as durably
// blocked in a testing/synctest bubble.
//
// Flows wait apart and take turns, by bytes; one that has just begun, or that
// had nothing waiting, comes first. So a keystroke does not wait behind a
// download. This is the scheduler of RFC 8290 (FQ-CoDel) without CoDel: packets
// that come from TCP above are bounded by its windows, and the flows' delays do
// not add up.
type Queue struct {
	maxBytes int

	mu     sync.Mutex
	ready  sync.Cond // signalled when a packet arrives in the empty queue, and by Close
	flows  flows
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
	q := &Queue{maxBytes: maxBytes}
	q.ready.L = &q.mu
	return q
}

// Put appends p and takes over its reference. It never waits. In a full queue
// the longest flow makes room by losing its last packets. Put returns false if
// that flow is p's own, or the queue is closed; p then still belongs to the
// caller, who usually releases it: TCP takes the loss as the sign to slow down.
func (q *Queue) Put(p Packet) bool {
	n, bucket := p.Len(), p.bucket()
	p.queued = clock.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || !q.makeRoom(bucket, n) {
		q.drops++
		return false
	}
	q.flows.put(bucket, p, n)
	q.count++
	q.bytes += n
	if q.count == 1 {
		q.ready.Signal()
	}
	return true
}

// makeRoom drops packets until n bytes more may wait, and returns false if
// that would be at the cost of flows no longer than the one in bucket.
func (q *Queue) makeRoom(bucket, n int) bool {
	for q.count > 0 && q.bytes+n > q.maxBytes {
		f := q.flows.longest()
		if q.flows.waiting(bucket)+n >= f.bytes {
			return false
		}
		p := f.popTail()
		q.count--
		q.bytes -= p.Len()
		q.drops++
		p.Release()
	}
	return true
}

// Take moves packets into ps and gives their references to the caller: as many
// as there are and fit, but after the first none beyond 64 KiB together, as
// what is taken can no longer be overtaken. Packets of one flow come in order.
//
// It waits until there is at least one, or until Wake, and may return 0 then.
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
	n, taken := 0, 0
	for n < len(ps) && q.count > 0 {
		f := q.flows.turn()
		size := f.front().Len()
		if n > 0 && taken+size > takeBytes {
			break
		}
		ps[n] = f.popHead()
		f.deficit -= size
		n++
		taken += size
		q.count--
	}
	q.bytes -= taken
	if q.count == 0 {
		q.flows.clear()
	}
	return n, nil
}

// TakeSmall is Take for flows that have hardly anything waiting: no more than
// they may send in their turn. It does not wait; 0 says that there are none. The
// flows of the packets in taken are passed over: those have not left yet.
func (q *Queue) TakeSmall(ps, taken []Packet) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range []*flowList{&q.flows.fresh, &q.flows.old} {
		for f := l.head; f != nil; f = f.next {
			of := func(p Packet) bool { return p.pb != nil && p.bucket() == f.bucket }
			for small := f.bytes <= quantum && !slices.ContainsFunc(taken, of); small && f.count > 0 && n < len(ps); n++ {
				ps[n] = f.popHead()
				size := ps[n].Len()
				f.deficit -= size
				q.count--
				q.bytes -= size
			}
		}
	}
	if q.count == 0 {
		q.flows.clear()
	}
	return n
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

// Dropped counts the packets that Put refused, and those that made room.
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
		q.flows.turn().popHead().Release()
	}
	q.flows.clear()
	q.bytes = 0
	q.ready.Broadcast()
}
