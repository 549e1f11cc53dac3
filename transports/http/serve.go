package http

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// A call is a request that is being answered.
type call struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
}

// patience is how long one read or one write may take.
const patience = 30 * time.Second

func (c *call) reading(d time.Duration) { _ = c.control.SetReadDeadline(time.Now().Add(d)) }
func (c *call) writing()                { _ = c.control.SetWriteDeadline(time.Now().Add(patience)) }

// answer sends a short response. What becomes of it, the client knows.
func (c *call) answer(b []byte) {
	c.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	c.writing()
	_, _ = c.w.Write(b)
}

// body takes the blocks of a short body.
func (s *served) body(c *call) error {
	c.reading(patience)
	limited := &io.LimitedReader{R: c.r.Body, N: maxShort}
	err := s.receiveAll(limited, nil)
	if err == nil && limited.N == 0 {
		_, err = io.Copy(io.Discard, c.r.Body)
	}
	// The server reads on, to learn when the client goes.
	_ = c.control.SetReadDeadline(time.Time{})
	return err
}

// serveShort answers with a short response.
func (s *served) serveShort(c *call, t ticket, d transports.Description) {
	if err := s.body(c); err != nil {
		s.stop(err)
	}
	if t.resend {
		s.again()
	}
	first := false
	hold := time.Duration(0)
	switch t.form {
	case formOpen:
		s.mu.Lock()
		first = s.next > 0 && s.taken == 0
		s.mu.Unlock()
		s.start(d)
		if first {
			hold = openTime
		}
	case formPoll:
		hold = pollTime
	}
	until := time.Now().Add(hold)
	s.mu.Lock()
	for s.err == nil && !s.fin {
		now := time.Now()
		due, at := s.owes(now)
		if s.has(s.sent) || due && !first || !now.Before(until) || t.form == formPoll && s.down != 0 && s.heard == s.down {
			break
		}
		if at.IsZero() || at.After(until) || first {
			at = until
		}
		ch := s.wait()
		s.mu.Unlock()
		pause(ch, c.r.Context().Done(), at.Sub(now), false)
		s.mu.Lock()
		if c.r.Context().Err() != nil {
			s.mu.Unlock()
			return
		}
	}
	if first && s.err == nil {
		s.mu.Unlock()
		pause(nil, s.over, gatherTime, false)
		s.mu.Lock()
	}
	b := s.state(nil)
	b = s.take(b, &s.sent, shortLimit)
	if s.err != nil {
		b = appendBlock(b, block{typ: blockEnd})
	}
	s.mu.Unlock()
	c.answer(b)
}

// serveUp reads a streamed body to its end.
func (s *served) serveUp(c *call, t ticket) {
	over := make(chan struct{})
	defer close(over)
	go s.interrupt(c, over)
	c.reading(2 * patience)
	err := s.receiveAll(c.r.Body, func(block) {
		s.mu.Lock()
		if s.hears != t.number {
			s.hears = t.number
			s.signal()
		}
		s.mu.Unlock()
		c.reading(2 * patience)
		s.touch()
	})
	s.mu.Lock()
	if s.hears == t.number {
		s.hears = 0
	}
	b := s.state(nil)
	if s.err != nil {
		b = appendBlock(b, block{typ: blockEnd})
	}
	s.mu.Unlock()
	if err != nil {
		s.untold()
		panic(http.ErrAbortHandler) // the connection is of no use any more
	}
	c.answer(b)
}

// interrupt ends the reading of a body with the session.
func (s *served) interrupt(c *call, over <-chan struct{}) {
	s.mu.Lock()
	for s.err == nil && !s.fin {
		ch := s.wait()
		s.mu.Unlock()
		select {
		case <-ch:
		case <-over:
			return
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
	select {
	case <-over:
	default:
		c.reading(0)
	}
}

// serveDown sends a streamed response until either end, or a newer request for
// one, ends it.
func (s *served) serveDown(c *call, t ticket) {
	if err := s.body(c); err != nil {
		s.stop(err)
	}
	c.w.WriteHeader(http.StatusOK)
	begin := time.Now()
	idle := begin // the first word shows the client that the stream passes
	s.mu.Lock()
	s.down = t.number
	s.signal()
	cursor := s.base
	carried := 0
	var buf []byte
	for s.down == t.number {
		now := time.Now()
		proven := s.heard == t.number
		b := buf[:0]
		due, at := s.owes(now)
		if due || !now.Before(idle) {
			b = s.state(b)
		}
		if s.has(cursor) && (proven || carried < unprovenLimit) {
			if len(b) == 0 && s.taken != s.told {
				b = s.state(b)
			}
			b = s.take(b, &cursor, maxPayload)
		}
		ended := s.err != nil || s.fin
		last := ended && !s.has(cursor)
		if last {
			b = appendBlock(b, block{typ: blockEnd})
		}
		if len(b) > 0 {
			s.mu.Unlock()
			c.writing()
			_, err := c.w.Write(b)
			if err == nil {
				err = c.control.Flush()
			}
			carried += len(b)
			buf = b
			idle = now.Add(keepAlive)
			s.mu.Lock()
			if err != nil {
				break
			}
			if !last {
				continue
			}
		}
		if ended || !proven && now.Sub(begin) >= unprovenTime {
			break
		}
		if at.IsZero() || at.After(idle) {
			at = idle
		}
		if limit := begin.Add(unprovenTime); !proven && at.After(limit) {
			at = limit
		}
		ch := s.wait()
		s.mu.Unlock()
		pause(ch, c.r.Context().Done(), at.Sub(now), false)
		s.mu.Lock()
		if c.r.Context().Err() != nil {
			break
		}
	}
	if s.down == t.number {
		s.down = 0
	}
	s.mu.Unlock()
}
