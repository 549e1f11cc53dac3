// Package portmux tells apart what arrives on one TCP port by its first bytes:
// RFC 9329 streams, TLS and all else, which is a web server's. From reverse proxies
// that are trusted it takes the PROXY protocol, versions 1 and 2.
//
// # Limitations
//
// Inside TLS everything is taken for HTTP.
package portmux

import (
	"bytes"
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// Patience is how long a visitor may take to say what it wants: as long as
	// the web server that it is handed to gives for a request's header, which is
	// told how much of that is over. See Conn.
	Patience = 10 * time.Second
	// maxPending bounds the visitors that are not yet handed over. The one
	// that has waited longest makes room for a new one, so that those who say
	// nothing keep nobody out.
	maxPending = 4096
)

// A Mux hands the connections of one listener to the listeners Raw and HTTP.
type Mux struct {
	most      int // visitors that are not yet handed over
	ln        net.Listener
	tls       *tls.Config
	trusted   func(netip.Addr) bool
	raw, http *side
	wg        sync.WaitGroup
	done      chan struct{}

	mu      sync.Mutex
	pending list.List // of net.Conn, the oldest first
	closed  bool
}

// Options of a Mux.
type Options struct {
	// TLS is for those who begin with a ClientHello; they are closed without it.
	TLS *tls.Config
	// Trusted tells whether a reverse proxy with an address may say, by the PROXY
	// protocol, for whom it has come. Others' headers are bytes like any; nil
	// trusts nobody.
	Trusted func(netip.Addr) bool
	// Pending bounds the visitors that are not yet handed over; 0 means 4096.
	Pending int
}

// New makes a Mux. Closing the Mux closes ln.
func New(ln net.Listener, o Options) *Mux {
	if o.Pending == 0 {
		o.Pending = maxPending
	}
	m := &Mux{ln: ln, most: o.Pending, tls: noting(o.TLS), trusted: o.Trusted, done: make(chan struct{})}
	m.raw, m.http = newSide(m), newSide(m)
	return m
}

// Raw gives the streams that begin with "IKETCP", which is still to be read.
func (m *Mux) Raw() net.Listener { return m.raw }

// HTTP gives all others: TLS connections as *tls.Conn with the handshake still to
// be done, beneath which there is a *Conn, and the rest as *Conn.
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
	if m.pending.Len() >= m.most {
		m.pending.Remove(m.pending.Front()).(net.Conn).Close()
	}
	return m.pending.PushBack(conn)
}

// visit finds out what a visitor wants, and hands it over. Whoever does not want
// RFC 9329 is the web server's, with all its mistakes: only a web server answers
// them as a web server does.
func (m *Mux) visit(conn net.Conn, e *list.Element) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.pending.Remove(e)
	}()
	c := &Conn{Conn: conn, begin: time.Now()}
	conn.SetDeadline(c.begin.Add(Patience))
	if !m.introduce(c) {
		conn.Close()
		return
	}
	kind, err := c.peek()
	if err != nil {
		conn.Close()
		return
	}
	c.kind = kind
	var out net.Conn = c
	to := m.http
	switch kind {
	case kindHTTP:
		// What came in the SYN may have been sent by anybody.
		if h, ok := conn.(interface{ Connected() error }); ok && h.Connected() != nil {
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
		out = tls.Server(c, m.tls)
	}
	if conn.SetDeadline(time.Time{}) != nil {
		conn.Close()
		return
	}
	c.waited = time.Since(c.begin)
	if !to.give(out) {
		conn.Close()
	}
}

// Web hands a connection that came by Raw, and that was not written to, to the web
// server: nothing that its visitor has said, seen so far, was RFC 9329 after all.
func (m *Mux) Web(conn net.Conn, seen []byte) {
	c, ok := conn.(*Conn)
	if !ok {
		conn.Close()
		return
	}
	// What came in the SYN may have been sent by anybody.
	if h, ok := c.Conn.(interface{ Connected() error }); ok && h.Connected() != nil {
		conn.Close()
		return
	}
	c.kind = kindHTTP
	c.seen = append(bytes.Clone(seen), c.seen...)
	c.waited = time.Since(c.begin)
	if c.Conn.SetDeadline(time.Time{}) != nil || !m.http.give(c) {
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

type kind uint8

const (
	kindMore kind = iota // more bytes are needed
	kindRaw
	kindTLS
	kindHTTP // or what a web server makes of it
)

// peek reads until it knows the protocol, and no byte more: how many of them a server
// has read when it closes a connection can be seen from outside, by a reset. What
// ends early, or does not go on in time, is a web server's too; an error says that
// the connection is broken.
func (c *Conn) peek() (kind, error) {
	for {
		if k := sniff(c.seen); k != kindMore {
			return k, nil
		}
		var buf [1]byte
		n, err := c.Conn.Read(buf[:])
		c.seen = append(c.seen, buf[:n]...)
		if err == nil || sniff(c.seen) != kindMore {
			continue
		}
		if ne, ok := err.(net.Error); err != io.EOF && !(ok && ne.Timeout()) {
			return kindMore, err
		}
		return kindHTTP, nil
	}
}

const prefix = "IKETCP" // RFC 9329, Section 4

// sniff tells a protocol by its first bytes. It needs no more than the prefix.
func sniff(b []byte) kind {
	switch {
	case len(b) == 0:
		return kindMore
	case b[0] == 0x16: // a TLS record of type handshake, RFC 8446, Section 5.1
		return kindTLS
	case len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix:
		return kindRaw
	case len(b) < len(prefix) && prefix[:len(b)] == string(b):
		return kindMore
	}
	return kindHTTP
}
