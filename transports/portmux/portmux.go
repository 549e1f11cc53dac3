// Package portmux tells apart what arrives on one TCP port by its first bytes:
// RFC 9329 streams, TLS and HTTP.
//
// # Limitations
//
// Inside TLS everything is taken for HTTP.
package portmux

import (
	"bytes"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// patience is how long a visitor may take to say what it wants, and again
	// for its TLS handshake.
	patience = 10 * time.Second
	// maxPending bounds the visitors that are not yet handed over. The one
	// that has waited longest makes room for a new one, so that those who say
	// nothing keep nobody out.
	maxPending = 4096
)

// A Mux hands the connections of one listener to the listeners Raw and HTTP.
type Mux struct {
	ln        net.Listener
	tls       *tls.Config
	raw, http *side
	wg        sync.WaitGroup
	done      chan struct{}

	mu      sync.Mutex
	pending list.List // of net.Conn, the oldest first
	closed  bool
}

// New makes a Mux. Without a tlsConfig TLS visitors are closed. Closing the Mux
// closes ln.
func New(ln net.Listener, tlsConfig *tls.Config) *Mux {
	m := &Mux{ln: ln, tls: tlsConfig, done: make(chan struct{})}
	m.raw, m.http = newSide(m), newSide(m)
	return m
}

// Raw gives the streams that begin with "IKETCP", which is still to be read.
func (m *Mux) Raw() net.Listener { return m.raw }

// HTTP gives plain HTTP connections, and TLS connections as *tls.Conn with the
// handshake done.
func (m *Mux) HTTP() net.Listener { return m.http }

// Serve runs until Close, or until the listener fails.
func (m *Mux) Serve() error {
	defer m.wg.Wait()
	defer m.Close()
	var delay time.Duration
	for {
		conn, err := m.ln.Accept()
		if err != nil {
			// Out of file descriptors, for one, is not the end.
			if ne, ok := err.(net.Error); ok && ne.Timeout() || temporary(err) {
				delay = min(max(2*delay, 5*time.Millisecond), time.Second)
				if m.sleep(delay) {
					continue
				}
				err = net.ErrClosed
			}
			return fmt.Errorf("accept on %s: %w", m.ln.Addr(), err)
		}
		delay = 0
		if e := m.admit(conn); e != nil {
			m.wg.Go(func() { m.visit(conn, e) })
		}
	}
}

func temporary(err error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary() && !errors.Is(err, net.ErrClosed)
}

// sleep waits, and is false when the Mux was closed meanwhile.
func (m *Mux) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.done:
		return false
	}
}

func (m *Mux) admit(conn net.Conn) *list.Element {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		conn.Close()
		return nil
	}
	if m.pending.Len() >= maxPending {
		m.pending.Remove(m.pending.Front()).(net.Conn).Close()
	}
	return m.pending.PushBack(conn)
}

// visit finds out what a visitor wants, and hands it over.
func (m *Mux) visit(conn net.Conn, e *list.Element) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.pending.Remove(e)
	}()
	conn.SetDeadline(time.Now().Add(patience))
	kind, seen, err := peek(conn)
	if err != nil {
		conn.Close()
		return
	}
	var out net.Conn = &peeked{Conn: conn, seen: seen}
	to := m.http
	switch kind {
	case kindHTTP:
		// What came in the SYN may have been sent by anybody.
		if c, ok := conn.(interface{ Connected() error }); ok && c.Connected() != nil {
			conn.Close()
			return
		}
	case kindRaw:
		to = m.raw
	case kindTLS:
		if m.tls == nil {
			conn.Close()
			return
		}
		secure := tls.Server(out, m.tls)
		conn.SetDeadline(time.Now().Add(patience))
		if err := secure.HandshakeContext(context.Background()); err != nil {
			conn.Close()
			return
		}
		out = secure
	}
	if conn.SetDeadline(time.Time{}) != nil || !to.give(out) {
		conn.Close()
	}
}

// Close ends Serve, the listeners and the visitors not yet handed over.
func (m *Mux) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	close(m.done)
	err := m.ln.Close()
	for e := m.pending.Front(); e != nil; e = e.Next() {
		e.Value.(net.Conn).Close()
	}
	return err
}

// A side is one of the listeners.
type side struct {
	mux   *Mux
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newSide(m *Mux) *side {
	return &side{mux: m, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give is false when nobody takes conn any more.
func (s *side) give(conn net.Conn) bool {
	select {
	case s.conns <- conn:
		return true
	case <-s.done:
	case <-s.mux.done:
	}
	return false
}

// Accept implements net.Listener.
func (s *side) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
	case <-s.mux.done:
	}
	return nil, net.ErrClosed
}

// Close ends Accept. Later visitors of this side are closed.
func (s *side) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr implements net.Listener.
func (s *side) Addr() net.Addr { return s.mux.ln.Addr() }

// peeked is a connection whose first bytes are known.
type peeked struct {
	net.Conn
	seen []byte // nil when they have been read
}

// Read gives the known bytes first.
func (c *peeked) Read(b []byte) (int, error) {
	if len(c.seen) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.seen)
	if c.seen = c.seen[n:]; len(c.seen) == 0 {
		c.seen = nil
	}
	return n, nil
}

// NetConn gives the connection beneath.
func (c *peeked) NetConn() net.Conn { return c.Conn }

type kind uint8

const (
	kindMore kind = iota // more bytes are needed
	kindNone             // nothing we serve
	kindRaw
	kindTLS
	kindHTTP
)

var errUnknown = errors.New("unknown protocol")

// peek reads until it knows the protocol.
func peek(conn net.Conn) (kind, []byte, error) {
	var b []byte
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf[len(b):])
		b = buf[:len(b)+n]
		switch k := sniff(b); {
		case k == kindNone:
			return k, b, errUnknown
		case k != kindMore:
			return k, b, nil
		case err != nil:
			return k, b, err
		}
	}
}

const (
	prefix    = "IKETCP" // RFC 9329, Section 4
	maxMethod = 16       // longer than any method of HTTP
)

// sniff tells a protocol by its first bytes. It needs no more than maxMethod+1.
func sniff(b []byte) kind {
	if len(b) == 0 {
		return kindMore
	}
	// A TLS record of type handshake, version 3.x. RFC 8446, Section 5.1
	if b[0] == 0x16 {
		switch {
		case len(b) == 1:
			return kindMore
		case b[1] == 0x03:
			return kindTLS
		}
		return kindNone
	}
	if len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix {
		return kindRaw
	}
	// An HTTP request line: a method in capitals and a space.
	head := b[:min(len(b), maxMethod+1)]
	method, _, found := bytes.Cut(head, []byte{' '})
	for _, c := range method {
		if c < 'A' || c > 'Z' {
			return kindNone
		}
	}
	switch {
	case found && len(method) > 0:
		return kindHTTP
	case found || len(b) > maxMethod:
		return kindNone
	}
	return kindMore
}
