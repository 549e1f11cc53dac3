package http

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// worthwhile is how long a stream has to last for another to follow, however often.
const worthwhile = 2 * time.Second

// errStalled ends a streamed request by which nothing gets through.
var errStalled = errors.New("nothing came through the stream in time")

// downStream reads streamed responses, one after the other, until one does not
// pass. conn is for the first.
func (s *session) downStream(conn net.Conn) {
	mark := markBeside
	for failed := 0; failed < tries; {
		began := time.Now()
		proven, err := s.down(conn, mark)
		conn, mark = nil, markNone
		if !proven || s.ctx.Err() != nil {
			return // polls do it
		}
		if failed++; time.Since(began) > worthwhile {
			failed = 0 // proxies limit how long a response may last
		}
		if err != nil {
			s.untold()
		}
	}
}

// down reads one streamed response to its end, and tells whether it came as a
// stream does.
func (s *session) down(conn net.Conn, mark mark) (proven bool, err error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(provingTime, func() { cancel(errStalled) })
	defer alarm.Stop()
	number := s.numbers.Add(1)
	s.mu.Lock()
	body := s.state(nil)
	s.mu.Unlock()
	resp, err := s.do(func() *http.Request {
		c := conn
		conn = nil
		return s.request(ctx, formDown, number, c, bytes.NewReader(body), mark)
	})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	defer func() {
		s.mu.Lock()
		if s.downOn {
			s.pollsFrom = time.Now().Add(4 * s.grace) // another stream may be there by then
		}
		s.downOn, s.hears = false, 0
		s.signal()
		s.mu.Unlock()
	}()
	err = s.receiveAll(resp.Body, func(block) {
		alarm.Reset(streamTime)
		if !proven {
			proven = true
			s.mu.Lock()
			s.downOn, s.hears = true, number
			s.signal()
			s.mu.Unlock()
		}
		s.progress()
	})
	return proven, err
}

// upStream sends streamed bodies, one after the other, until one does not pass.
func (s *session) upStream() {
	for failed, stalls := 0, 0; failed < tries && stalls < 2; {
		began := time.Now()
		// By a connection of its own: the one of the first request is for data that
		// leaves meanwhile.
		conn, _, err := s.open(s.ctx)
		if err != nil {
			return // exchanges do it, or find out
		}
		proven, stalled := s.up(conn)
		s.mu.Lock()
		s.upOn = false
		s.mu.Unlock()
		s.again() // what was under way, by whatever comes next
		if !proven || s.ctx.Err() != nil {
			return // exchanges do it
		}
		lasted := time.Since(began)
		if failed++; lasted > worthwhile {
			failed = 0
		}
		if stalled {
			stalls++
		}
		if lasted > time.Minute {
			stalls = 0
		}
	}
}

// up sends one streamed body to its end, and tells whether it went as a stream
// does, and whether it ended because nothing was acknowledged any more.
func (s *session) up(conn net.Conn) (proven, stalled bool) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	number := s.numbers.Add(1)
	b := &upBody{s: s, done: ctx.Done(), number: number}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel(nil)
		once := false
		resp, err := s.do(func() *http.Request {
			if once { // a body that is partly read cannot be sent again
				cancel(nil)
			}
			once = true
			return s.request(ctx, formUp, number, conn, b, markNone)
		})
		if err != nil {
			return
		}
		defer resp.Body.Close()
		_ = s.receiveAll(io.LimitReader(resp.Body, maxShort), nil)
	}()
	defer func() {
		cancel(nil)
		<-ended
	}()
	proof := time.Now().Add(provingTime)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.heard < number {
		if left := time.Until(proof); left <= 0 || ctx.Err() != nil || s.err != nil || s.fin {
			return false, false
		}
		ch := s.wait()
		s.mu.Unlock()
		pause(ch, ctx.Done(), time.Until(proof), false)
		s.mu.Lock()
	}
	s.upOn = true
	s.signal()
	// Some intermediaries pass the beginning of a stream and keep its rest.
	patience := time.Now().Add(stallTime)
	for base := s.base; ctx.Err() == nil && s.err == nil && !s.fin; {
		now := time.Now()
		if s.base != base || len(s.out) == 0 || s.unsent <= s.base {
			base, patience = s.base, now.Add(stallTime)
		}
		if !now.Before(patience) {
			return true, true
		}
		ch := s.wait()
		s.mu.Unlock()
		pause(ch, ctx.Done(), patience.Sub(now), false)
		s.mu.Lock()
	}
	return true, false
}

// stallTime is how long segments may stay unacknowledged by a stream.
const stallTime = 5 * time.Second

// upBody is the body of a streamed request.
type upBody struct {
	s      *session
	done   <-chan struct{}
	number uint32
	begun  bool
	rest   []byte
	buf    []byte
}

// Read gives blocks when there are some.
func (b *upBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 && !b.fill() {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// WriteTo gives whole blocks to the transport, which would have them in pieces.
func (b *upBody) WriteTo(w io.Writer) (total int64, err error) {
	for len(b.rest) > 0 || b.fill() {
		n, err := w.Write(b.rest)
		total += int64(n)
		b.rest = b.rest[n:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// fill waits for something to say. It is false at the stream's end.
func (b *upBody) fill() bool {
	s := b.s
	idle := time.Now().Add(keepAlive)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && !s.fin {
		now := time.Now()
		b.rest = b.buf[:0]
		due, at := s.owes(now)
		if !b.begun || !now.Before(idle) || due {
			b.begun = true
			b.rest = s.state(b.rest)
		}
		if s.upOn && s.has(s.sent) {
			if len(b.rest) == 0 && s.taken != s.told {
				b.rest = s.state(b.rest)
			}
			b.rest = s.take(b.rest, &s.sent, maxPayload)
		}
		if len(b.rest) > 0 {
			b.buf = b.rest[:0]
			return true
		}
		if at.IsZero() || at.After(idle) {
			at = idle
		}
		ch := s.wait()
		s.mu.Unlock()
		pause(ch, b.done, at.Sub(now), false)
		s.mu.Lock()
		select {
		case <-b.done:
			return false
		default:
		}
	}
	return false
}

// Close implements io.Closer; the stream's end is told by done.
func (b *upBody) Close() error { return nil }
