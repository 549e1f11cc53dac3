package http

import (
	"container/list"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
	"github.com/godwit-net/godwit/transports/web"
)

const (
	// maxStrangers bounds the sessions whose clients have not shown that they hold
	// keys. The one that came first makes room for a new one.
	maxStrangers = 1024
	// maxSessions bounds all sessions. No more are begun then.
	maxSessions = 32768
	// pendingTime is how long a streamed request waits for its session to begin.
	pendingTime = 15 * time.Second
	// idleTime is how long a session lives when nothing is heard of its client,
	// which says something every 20 s.
	idleTime = 70 * time.Second
	// openTime is how long the first response waits for the answer to the first
	// flight.
	openTime = 2 * time.Second
	// gatherTime is how long the first response, and exchanges, wait for more when
	// there is something to say: a registration has two answers.
	gatherTime = time.Millisecond
	// unprovenLimit bounds what a streamed response carries before it is known to
	// pass, in bytes, and unprovenTime how long it may take to be known.
	unprovenLimit = 256 << 10
	unprovenTime  = 2 * provingTime
)

var (
	errIdle    = errors.New("nothing was heard of the client")
	errCrowded = errors.New("too many clients that did not show that they hold keys")
)

// A Handler serves the requests for one path that bear a ticket.
type Handler struct {
	path    string
	handler transports.Handler
	wg      sync.WaitGroup

	mu        sync.Mutex
	sessions  map[[16]byte]*served
	strangers list.List // of *served, the oldest first
	closed    bool
}

// NewHandler makes a Handler for a path that begins with a slash.
func NewHandler(path string, h transports.Handler) *Handler {
	return &Handler{path: path, handler: h, sessions: make(map[[16]byte]*served)}
}

// served is the server's end of a session.
type served struct {
	line
	h     *Handler
	id    [16]byte
	timer *time.Timer

	// Below the handler's lock:
	carrier  *stream.Carrier // nil until it has begun
	stranger *list.Element   // nil when its client holds keys
	heardAt  time.Time

	// Below the line's lock:
	down uint32 // the streamed request whose response is the current one
}

// ServeMount implements web.Mount: it answers requests with a ticket.
func (h *Handler) ServeMount(w http.ResponseWriter, r *http.Request, v web.Visit) bool {
	if subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte(h.path)) != 1 || r.Method != http.MethodPost {
		return false
	}
	k, err := r.Cookie(cookieName)
	if err != nil {
		return false
	}
	t, ok := decodeTicket(k.Value)
	if !ok {
		return false
	}
	s, known := h.session(t)
	if s == nil && !known {
		return false
	}
	if v.Conn != nil {
		stream.Tune(v.Conn)
	}
	d := v.Description
	if d.Proxy == "" && digest(r.Header) != t.header {
		d.Proxy = written(r.Header)
	}
	c := &call{w: w, r: r, control: http.NewResponseController(w)}
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no") // nginx
	if s == nil {
		c.answer(appendBlock(nil, block{typ: blockEnd}))
		return true
	}
	defer h.wg.Done()
	switch t.form {
	case formDown:
		s.serveDown(c, t)
	case formUp:
		s.serveUp(c, t)
	default:
		s.serveShort(c, t, d)
	}
	return true
}

// written tells who has written in a request's header, as far as it says so.
func written(h http.Header) string {
	const maxName = 64
	via := h.Get("Via")
	if i := strings.LastIndexByte(via, ','); i >= 0 {
		via = via[i+1:]
	}
	// "received-protocol RWS received-by", RFC 9110, Section 7.6.3
	if f := strings.Fields(via); len(f) >= 2 && len(f[1]) <= maxName && !strings.ContainsFunc(f[1], func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return f[1]
	}
	return "unnamed"
}

// session finds a ticket's session, or makes one. It gives nil and true for one
// that is over, and nil and false when the handler is closed. The caller calls
// h.wg.Done when it is done with it.
func (h *Handler) session(t ticket) (s *served, known bool) {
	var evicted *served
	defer func() {
		if evicted != nil {
			evicted.stop(errCrowded)
		}
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false
	}
	s = h.sessions[t.session]
	if s == nil {
		if t.form != formOpen && !(t.form == formDown && t.beside) || len(h.sessions) >= maxSessions {
			return nil, true
		}
		if h.strangers.Len() >= maxStrangers {
			evicted = h.strangers.Front().Value.(*served)
			h.forget(evicted)
		}
		s = &served{h: h, id: t.session}
		s.outLimit, s.inLimit, s.over = strangersWindow, 2*strangersWindow, make(chan struct{})
		s.closed = func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.forget(s)
		}
		s.stranger = h.strangers.PushBack(s)
		s.timer = time.AfterFunc(pendingTime, s.check)
		h.sessions[t.session] = s
	}
	s.touched()
	h.wg.Add(1)
	return s, true
}

// forget drops a session. The lock is held.
func (h *Handler) forget(s *served) {
	s.timer.Stop()
	if h.sessions[s.id] == s {
		delete(h.sessions, s.id)
	}
	if s.stranger != nil {
		h.strangers.Remove(s.stranger)
		s.stranger = nil
	}
}

// touch notes that the client was heard.
func (s *served) touch() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.touched()
}

// touched is touch with the handler's lock held.
func (s *served) touched() {
	s.heardAt = time.Now()
	if s.stranger == nil || s.carrier == nil || !s.carrier.Trusted() {
		return
	}
	s.h.strangers.Remove(s.stranger)
	s.stranger = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outLimit, s.inLimit = window, 2*window
	s.signal()
}

// check ends a session of which nothing is heard, or that does not begin.
func (s *served) check() {
	s.h.mu.Lock()
	left := idleTime - time.Since(s.heardAt)
	over := s.carrier == nil || left <= 0
	if !over && s.h.sessions[s.id] == s {
		s.timer.Reset(left)
	}
	s.h.mu.Unlock()
	if over {
		s.stop(errIdle)
	}
}

// stop ends a session from this end.
func (s *served) stop(err error) {
	s.h.mu.Lock()
	c := s.carrier
	s.h.mu.Unlock()
	s.fail(err)
	if c != nil && errors.Is(err, net.ErrClosed) {
		c.Close()
	}
}

// start begins the session, once.
func (s *served) start(d transports.Description) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	if s.carrier != nil || s.h.closed || s.h.sessions[s.id] != s {
		return
	}
	s.carrier = stream.New(transports.HTTP, d, s.h.handler)
	s.carrier.Probation()
	s.timer.Reset(idleTime)
	c := s.carrier
	s.h.wg.Go(func() { c.Run(&s.line) })
}

// Close ends all sessions, and waits for what is being answered and for the
// transports.Handler to be told. Later requests are not the Handler's.
func (h *Handler) Close() error {
	h.mu.Lock()
	h.closed = true
	var all []*served
	for _, s := range h.sessions {
		all = append(all, s)
	}
	h.mu.Unlock()
	for _, s := range all {
		s.stop(net.ErrClosed)
	}
	h.wg.Wait()
	return nil
}
