package http

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
)

const (
	// window bounds what is under way in one direction and not acknowledged, in
	// bytes, at either end. It is the product of 300 Mbit/s and 100 ms.
	window = 4 << 20
	// strangersWindow is the same at a server whose client has not shown that it
	// holds keys: many of them may be there.
	strangersWindow = 128 << 10
	// firstWindow is a client's until the server has acknowledged something, and so
	// had the occasion to see that the client holds keys.
	firstWindow = 64 << 10
	// maxSegments bounds it in number.
	maxSegments = 1024
	// unsentLimit bounds what waits here and is not under way yet. Packets wait in
	// the queue before, where urgent ones overtake them.
	unsentLimit = 64 << 10
	// tellAfter is how many bytes are taken before the peer has to be told, which
	// frees its window; and tellDelay how long fewer wait.
	tellAfter = 256 << 10
	tellDelay = 50 * time.Millisecond
)

// A line is one end of a session: the segments that go out, until they are
// acknowledged, and those that have come in, until they are taken. It is the
// stream.Stream of the session's carrier. How segments travel is not its business.
type line struct {
	mu     sync.Mutex
	change chan struct{} // closed when something has changed; nil: nobody waits
	// outLimit bounds what goes out and is not acknowledged, inLimit what has come
	// in and is not taken, in bytes.
	outLimit, inLimit int

	base   uint64   // the first segment that is not acknowledged
	out    [][]byte // from base on; never written to
	size   int      // bytes of out
	sent   uint64   // the first segment that no short message has carried
	unsent uint64   // the first segment that nothing has carried

	taken, next uint64   // the next segment to take, and the next to arrive
	ready       [][]byte // taken to next
	readySize   int
	early       map[uint64][]byte // above next
	earlySize   int
	fin         bool // the peer has ended the session

	told      uint64    // the taken that the peer was told
	owed      int       // bytes taken since
	owedSince time.Time // when the first of them was
	hears     uint32    // the peer's streamed request that is heard here
	toldHears uint32
	heard     uint32 // the last streamed request of ours that the peer has heard

	err    error         // why it ended
	over   chan struct{} // closed then
	closed func()
}

// largeBuffers are for segments that are nearly full, of which there are many when a
// lot is to be carried.
var largeBuffers = sync.Pool{New: func() any { return new([maxPayload]byte) }}

// buffer gives n bytes, maxPayload at most.
func buffer(n int) []byte {
	if n < maxPayload/2 {
		return make([]byte, n)
	}
	return largeBuffers.Get().(*[maxPayload]byte)[:n]
}

// release takes back what buffer gave.
func release(b []byte) {
	if cap(b) == maxPayload {
		largeBuffers.Put((*[maxPayload]byte)(b[:maxPayload]))
	}
}

// wait gives a channel that is closed at the next change. The lock is held.
func (l *line) wait() <-chan struct{} {
	if l.change == nil {
		l.change = make(chan struct{})
	}
	return l.change
}

// signal tells of a change. The lock is held.
func (l *line) signal() {
	if l.change != nil {
		close(l.change)
		l.change = nil
	}
}

// WriteFrames implements stream.Stream: it makes b a segment when there is room.
func (l *line) WriteFrames(b []byte) error {
	segment := append(buffer(len(b))[:0], b...)
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && len(l.out) > 0 && (l.size+len(b) > l.outLimit || len(l.out) >= maxSegments || l.waiting() >= unsentLimit) {
		ch := l.wait()
		l.mu.Unlock()
		<-ch
		l.mu.Lock()
	}
	if l.err != nil {
		return l.err
	}
	l.out = append(l.out, segment)
	l.size += len(segment)
	l.signal()
	return nil
}

// waiting counts the bytes that nothing has carried. The lock is held.
func (l *line) waiting() (n int) {
	for i := int(max(l.unsent, l.base) - l.base); i < len(l.out); i++ {
		n += len(l.out[i])
	}
	return n
}

// has tells whether there is a segment from a cursor on. The lock is held.
func (l *line) has(cursor uint64) bool {
	return max(cursor, l.base) < l.base+uint64(len(l.out))
}

// take appends blocks of segments to dst, from a cursor on and at most limit
// bytes but at least one segment, and moves the cursor. The lock is held.
func (l *line) take(dst []byte, cursor *uint64, limit int) []byte {
	*cursor = max(*cursor, l.base)
	for begin := len(dst); ; *cursor++ {
		i := int(*cursor - l.base)
		if i >= len(l.out) || len(dst) > begin && len(dst)-begin+len(l.out[i]) > limit {
			break
		}
		dst = appendBlock(dst, block{typ: blockFrames, number: *cursor, payload: l.out[i]})
	}
	if *cursor > l.unsent {
		l.unsent = *cursor
		l.signal()
	}
	return dst
}

// again has short messages carry everything again that is not acknowledged.
func (l *line) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = l.base
	l.signal()
}

// owes tells whether the peer is to be told what was taken, or when it will be
// due; zero: nothing is owed. The lock is held.
func (l *line) owes(now time.Time) (due bool, at time.Time) {
	// The first word widens a client's window.
	if l.hears != l.toldHears || l.owed >= tellAfter || l.told == 0 && l.taken > 0 {
		return true, at
	}
	if l.taken != l.told {
		at = l.owedSince.Add(tellDelay)
		return !now.Before(at), at
	}
	return false, at
}

// state appends a block that tells what was taken. The lock is held.
func (l *line) state(dst []byte) []byte {
	l.told, l.owed, l.toldHears = l.taken, 0, l.hears
	return appendBlock(dst, block{typ: blockState, number: l.taken, payload: binary.BigEndian.AppendUint32(nil, l.hears)})
}

// untold has the peer told once more: the last word may be lost.
func (l *line) untold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed = tellAfter
	l.signal()
}

// receive takes one block of the peer's.
func (l *line) receive(b block) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch b.typ {
	case blockFrames:
		return l.arrive(b.number, b.payload)
	case blockState:
		if b.number > l.base+uint64(len(l.out)) {
			return fmt.Errorf("segment %d acknowledged of %d: %w", b.number, l.base+uint64(len(l.out)), transports.ErrProtocol)
		}
		if h := binary.BigEndian.Uint32(b.payload); h != 0 {
			l.heard = h
		}
		for ; l.base < b.number; l.base++ {
			l.size -= len(l.out[0])
			release(l.out[0]) // take has copied it
			l.out[0] = nil
			l.out = l.out[1:]
		}
		if len(l.out) == 0 {
			l.out = nil
		}
	case blockEnd:
		l.fin = true
	}
	l.signal()
	return nil
}

// arrive takes a segment. Those that have come before are dropped.
func (l *line) arrive(n uint64, payload []byte) error {
	switch {
	case n < l.next, l.early[n] != nil, len(payload) == 0 && n != l.next:
		return nil
	case n >= l.taken+maxSegments, l.readySize+l.earlySize+len(payload) > l.inLimit:
		return fmt.Errorf("segment %d is beyond the window: %w", n, transports.ErrProtocol)
	}
	if n > l.next {
		if l.early == nil {
			l.early = make(map[uint64][]byte)
		}
		l.early[n] = payload
		l.earlySize += len(payload)
		return nil
	}
	for ok := true; ok; {
		l.ready = append(l.ready, payload)
		l.readySize += len(payload)
		l.next++
		if payload, ok = l.early[l.next]; ok {
			delete(l.early, l.next)
			l.earlySize -= len(payload)
		}
	}
	l.signal()
	return nil
}

// ReadFrames implements stream.Stream.
func (l *line) ReadFrames(r *stream.Reader) error {
	for {
		l.mu.Lock()
		for len(l.ready) == 0 && l.err == nil && !l.fin {
			ch := l.wait()
			l.mu.Unlock()
			<-ch
			l.mu.Lock()
		}
		if l.err != nil || len(l.ready) == 0 {
			err := l.err
			l.mu.Unlock()
			return err
		}
		b := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		l.mu.Unlock()

		err := r.Whole(b)
		size := len(b)
		release(b)

		l.mu.Lock()
		if l.taken == l.told {
			l.owedSince = time.Now()
		}
		l.taken++
		l.owed += size
		l.readySize -= size
		l.signal()
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// Close implements stream.Stream.
func (l *line) Close() error {
	l.fail(net.ErrClosed)
	return nil
}

// fail ends the line; the first reason counts.
func (l *line) fail(err error) {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = err
		close(l.over)
		l.signal()
	}
	closed := l.closed
	l.mu.Unlock()
	if first && closed != nil {
		closed()
	}
}

// receiveAll takes the blocks of a body to its end.
func (l *line) receiveAll(body io.Reader, each func(block)) error {
	for {
		b, err := readBlock(body)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.receive(b); err != nil {
			return err
		}
		if each != nil {
			each(b)
		}
	}
}
