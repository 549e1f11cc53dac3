// Package site is the web server that everybody sees on the server's one port.
// Encapsulations in HTTP are mounted in it: they take the requests that are their
// own, and all others get an ordinary site.
//
// # Limitations
//
// A site's own HTTP/3 cannot be offered.
package site

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/godwit-net/godwit/transports/web"
)

// Limits of the web server, for visitors that nobody knows yet.
const (
	HeaderTimeout = 10 * time.Second // for TLS's handshake, and for a request's header
	IdleTimeout   = 60 * time.Second // between requests
	MaxHeader     = 16 << 10         // of one request, in bytes
)

// Options of a Server. The zero value of a field means the default.
type Options struct {
	// Content is the site; Page by default.
	Content http.Handler
	// Mounts are asked one after the other for each request.
	Mounts []web.Mount
	// Redirect sends visitors without TLS to the same address with it, unless a
	// trusted reverse proxy says that they have it already.
	Redirect bool
	// Trusted tells whether a reverse proxy with an address may say, by Forwarded
	// (RFC 7239) or X-Forwarded-For, for whom it asks. By default nobody may.
	Trusted func(netip.Addr) bool
	// Logger hears at debug level of what visitors do wrong; nil discards.
	Logger *slog.Logger
}

// A Server serves the connections of one listener.
type Server struct {
	o        Options
	ln       net.Listener
	http     *http.Server
	newcomer newcomers

	mu       sync.Mutex
	closed   bool
	requests sync.WaitGroup
}

// New makes a Server for ln, which gives plain connections and *tls.Conn whose
// handshake is still to be done. Closing the Server closes ln.
func New(ln net.Listener, o Options) *Server {
	if o.Content == nil {
		o.Content = Page()
	}
	if o.Trusted == nil {
		o.Trusted = func(netip.Addr) bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, ln: ln}
	s.http = &http.Server{
		Handler:           s,
		ConnContext:       web.WithConn,
		ConnState:         s.newcomer.state,
		ReadHeaderTimeout: HeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Protocols are what a TLS configuration for Server offers, best first (RFC 7301).
func Protocols() []string { return []string{"h2", "http/1.1"} }

// Serve runs until Close, or until the listener fails. It returns when all requests
// have been answered.
func (s *Server) Serve() error {
	err := s.http.Serve(s.ln)
	s.Close()
	s.requests.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = net.ErrClosed
	}
	return fmt.Errorf("accept HTTP: %w", err)
}

// Close ends Serve and the mounts.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.http.Close()
	for _, m := range s.o.Mounts {
		m.Close()
	}
	s.ln.Close() // the server only knows it once Serve was called
	return err
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler) // nobody is left to answer
	}
	defer s.requests.Done()
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // of the request before on this connection
	v, secure := s.visit(r)
	for _, m := range s.o.Mounts {
		if m.ServeMount(w, r, v) {
			return
		}
	}
	if s.o.Redirect && !secure && r.Host != "" {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
			if at := v.Description.Source.Port(); at != 443 && at != 80 && at != 0 {
				host = net.JoinHostPort(h, fmt.Sprint(at))
			}
		}
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusMovedPermanently)
		return
	}
	serve(s.o.Content, w, r, control)
}

// enter is false once the Server is closed.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.requests.Add(1)
	}
	return !s.closed
}

// visit tells who asks, and whether the visitor has TLS.
func (s *Server) visit(r *http.Request) (v web.Visit, secure bool) {
	v = web.NewVisit(r)
	d := &v.Description
	secure = r.TLS != nil
	if from := d.Destination; s.o.Trusted(from.Addr()) {
		if client, ok := forwardedFor(r.Header, s.o.Trusted); ok {
			d.Proxy = from.String()
			d.Destination = client
			secure = secure || forwardedTLS(r.Header)
		}
	}
	return v, secure
}
