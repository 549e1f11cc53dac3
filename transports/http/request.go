package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/godwit-net/godwit/transports/web"
)

// maxShort bounds what a short body may hold, in bytes.
const maxShort = shortLimit + maxPayload + 4096

const contentType = "application/octet-stream"

// request makes a request of one form. conn may be nil.
func (s *session) request(ctx context.Context, f form, number uint32, conn net.Conn, body io.Reader, mark mark) *http.Request {
	if conn != nil {
		ctx = context.WithValue(ctx, connKey{}, conn)
	}
	// Without TLS in the URL: dialContext sees to that.
	u := &url.URL{Scheme: "http", Host: s.desc.Authority, Path: s.opts.Path}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		// The path was made or checked when the settings were read.
		req, _ = http.NewRequestWithContext(ctx, http.MethodPost, "http://invalid/", body)
		req.URL = u
	}
	req.Header = http.Header{
		"User-Agent":      {s.opts.Fingerprint.UserAgent()},
		"Accept":          {"*/*"},
		"Accept-Encoding": {"identity"},
		"Content-Type":    {contentType},
		"Cache-Control":   {"no-store, no-transform"},
	}
	t := ticket{form: f, resend: mark == markResend, beside: mark == markBeside, number: number, session: s.id, header: digest(req.Header)}
	req.Header.Set("Cookie", cookieName+"="+t.encode())
	return req
}

// A mark is what sets a request apart from others of its form.
type mark uint8

const (
	markNone mark = iota
	markResend
	markBeside
)

// do makes the request that make gives, and once more if the upstream proxy wants
// to know who asks.
func (s *session) do(make func() *http.Request) (*http.Response, error) {
	for again := false; ; again = true {
		req := make()
		if s.forward != nil {
			if h := s.forward.Authorization(req.Method, "http://"+req.URL.Host+req.URL.RequestURI()); h != "" {
				req.Header.Set("Proxy-Authorization", h)
			}
		}
		resp, err := s.rt.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Type") == contentType {
			return resp, nil
		}
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection serves again
		resp.Body.Close()
		if s.forward != nil && resp.StatusCode == http.StatusProxyAuthRequired {
			err := s.forward.Challenged(resp.Header.Values("Proxy-Authenticate"), again)
			if err != nil {
				return nil, err
			}
			continue
		}
		return nil, web.NewStatusError(resp, s.desc.Authority)
	}
}

// short makes a request whose body and response are short, and takes the response.
// Besides what is to be said it holds a last block, if one is given.
func (s *session) short(ctx context.Context, f form, conn net.Conn, last *block) error {
	s.mu.Lock()
	body := s.state(nil)
	if f != formPoll && !(s.upOn && last == nil) {
		body = s.take(body, &s.sent, shortLimit)
	}
	if last != nil {
		body = appendBlock(body, *last)
	}
	mark := markNone
	if s.resend {
		s.resend, mark = false, markResend
	}
	s.mu.Unlock()
	err := s.exchanged(ctx, f, conn, body, mark)
	if err != nil {
		s.again()
		s.untold()
		s.mu.Lock()
		s.resend = true
		s.mu.Unlock()
	}
	return err
}

func (s *session) exchanged(ctx context.Context, f form, conn net.Conn, body []byte, mark mark) error {
	number := s.numbers.Add(1)
	resp, err := s.do(func() *http.Request {
		c := conn
		conn = nil // serves once
		return s.request(ctx, f, number, c, bytes.NewReader(body), mark)
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := s.receiveAll(io.LimitReader(resp.Body, maxShort), nil); err != nil {
		return fmt.Errorf("response: %w", err)
	}
	s.progress()
	return nil
}

// progress is called when the server has answered.
func (s *session) progress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers++
	if s.base > 0 && s.outLimit < window {
		s.outLimit = window
		s.signal()
	}
}

// A run counts the failures of one kind of request in a row.
type run struct {
	failed  int
	alone   int // since anything was answered
	answers uint64
}

// unreachable is why no connection to the server came about.
type unreachable struct{ err error }

func (u *unreachable) Error() string { return u.err.Error() }
func (u *unreachable) Unwrap() error { return u.err }

// goOn decides whether to go on after a request, and waits a little after some
// failures. It ends the session when nothing else is answered any more either: soon
// where the server cannot be reached, and else after some more tries.
func (s *session) goOn(r *run, err error) bool {
	if err == nil {
		r.failed, r.alone = 0, 0
		return s.ctx.Err() == nil
	}
	s.mu.Lock()
	answers, ended := s.answers, s.err != nil
	s.mu.Unlock()
	if ended || s.ctx.Err() != nil {
		return false
	}
	if answers != r.answers {
		r.alone = 0
	}
	r.failed, r.alone, r.answers = r.failed+1, r.alone+1, answers
	var out *unreachable
	if r.alone > 1 && errors.As(err, &out) || r.alone > tries || r.failed > 4*tries {
		s.fail(err)
		return false
	}
	if r.failed > 1 {
		pause(nil, s.over, time.Duration(r.failed)*200*time.Millisecond, false)
	}
	return true
}

// await waits until ready, called with the lock held, is true; it is called again
// at every change, and at the time that it gives. It returns false when the session
// has ended, and otherwise with the lock held.
func (s *session) await(ready func(now time.Time) (bool, time.Time)) bool {
	s.mu.Lock()
	for {
		if s.err != nil || s.fin {
			s.mu.Unlock()
			return false
		}
		now := time.Now()
		ok, at := ready(now)
		if ok {
			return true
		}
		ch := s.wait()
		s.mu.Unlock()
		pause(ch, nil, at.Sub(now), at.IsZero())
		s.mu.Lock()
	}
}

// pause waits for a channel, or done, or a time unless it is for ever.
func pause(ch <-chan struct{}, done <-chan struct{}, d time.Duration, forever bool) {
	if forever {
		select {
		case <-ch:
		case <-done:
		}
		return
	}
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ch:
	case <-done:
	case <-t.C:
	}
}

// exchange sends what no streamed body carries.
func (s *session) exchange() {
	needed := func(now time.Time) (bool, time.Time) {
		if s.upOn {
			return false, time.Time{}
		}
		if s.has(s.sent) {
			return true, time.Time{}
		}
		return s.owes(now)
	}
	for r := new(run); ; {
		if !s.await(needed) {
			return
		}
		s.mu.Unlock()
		// One request for what is said in one breath.
		pause(nil, s.over, gatherTime, false)
		s.mu.Lock()
		still, _ := needed(time.Now())
		s.mu.Unlock()
		if !still {
			continue
		}
		ctx, cancel := context.WithTimeout(s.ctx, shortTime)
		err := s.short(ctx, formExchange, nil, nil)
		cancel()
		if !s.goOn(r, err) {
			return
		}
	}
}

// poll asks for what no streamed response brings.
func (s *session) poll() {
	for r := new(run); ; {
		if !s.await(func(now time.Time) (bool, time.Time) {
			if s.downOn {
				return false, time.Time{}
			}
			return !now.Before(s.pollsFrom), s.pollsFrom
		}) {
			return
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(s.ctx, pollTime+shortTime)
		err := s.short(ctx, formPoll, nil, nil)
		cancel()
		if !s.goOn(r, err) {
			return
		}
	}
}
