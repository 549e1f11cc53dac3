// Package front is what applications talk to: one local port that serves
// SOCKS5 (RFC 1928, RFC 1929: CONNECT, UDP ASSOCIATE), SOCKS4 and 4A, HTTP
// CONNECT and plain HTTP forwarding (RFC 9110, RFC 9112), told apart by the
// first byte, and a proxy auto-configuration file for browsers at /proxy.pac.
//
// Names are never resolved here; the dialer gets them as the application wrote
// them.
//
// # Limitations
//
// The command BIND of SOCKS is refused; so are fragments of UDP
// ASSOCIATE (RFC 1928, Section 7).
package front

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/things-go/go-socks5"

	"github.com/godwit-net/godwit/tunnel/relay"
)

// noDeadline lifts one.
var noDeadline time.Time

const (
	// firstByteTimeout lets browsers keep a connection ready for a while.
	firstByteTimeout = time.Minute
	// handshakeTimeout bounds the rest of a SOCKS request or an HTTP header,
	// which applications send at once.
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 2 * time.Minute // of an HTTP connection between requests
	maxHeader        = 64 << 10        // bytes
)

// A Dialer opens a connection to address, a host:port in which host may be a
// name. network is "tcp". It must give up when ctx ends; its errors should match
// those of this package.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Config says how to reach targets and whom to serve.
type Config struct {
	Dial Dialer // required
	// Associate opens a way for one UDP ASSOCIATE: each Write takes and each
	// Read gives one datagram with the header of RFC 1928, Section 7. Its errors
	// other than net.ErrClosed and io.EOF pass. Nil refuses the command.
	Associate func(ctx context.Context) (net.Conn, error)
	Logger    *slog.Logger // nil discards

	// Pages answers requests that are meant for this port itself, other than
	// that for /proxy.pac. Nil gives a short text.
	Pages http.Handler
	// Bypass is what /proxy.pac has browsers go to without the proxy, besides this
	// machine itself.
	Bypass Bypass

	// With a Username applications have to give both, by RFC 1929 or as
	// Proxy-Authorization: Basic. Each has up to 255 bytes.
	Username, Password string
}

// A Server serves applications on one or more listeners.
type Server struct {
	c     Config
	log   *slog.Logger
	ctx   context.Context // ends with Close; dials depend on it
	stop  context.CancelFunc
	socks *socks5.Server
	web   *web
	wg    sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	conns     map[net.Conn]struct{}
	listeners map[net.Listener]struct{}
}

// New makes a server; Serve starts it.
func New(c Config) *Server {
	s := &Server{
		c:         c,
		log:       c.Logger,
		conns:     make(map[net.Conn]struct{}),
		listeners: make(map[net.Listener]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.socks = s.newSOCKS()
	s.web = s.newWeb()
	return s
}

// Serve takes connections from ln until Close, or until the listener fails; it
// closes ln. After Close the error matches net.ErrClosed.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
	}()

	for wait := time.Duration(0); ; {
		c, err := ln.Accept()
		switch {
		case err == nil:
			wait = 0
			if !s.add(c) {
				_ = c.Close()
				return net.ErrClosed
			}
			go s.serve(c)
		case s.ctx.Err() != nil:
			return net.ErrClosed
		case passing(err):
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.log.LogAttrs(s.ctx, slog.LevelWarn, "cannot accept a connection", slog.Any("err", err))
			select {
			case <-time.After(wait):
			case <-s.ctx.Done():
			}
		default:
			return fmt.Errorf("proxy at %s: %w", ln.Addr(), err)
		}
	}
}

// passing tells errors of Accept that end by themselves.
func passing(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// Close ends the listeners, all connections and all goroutines of the server
// and waits for them.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.stop()
	for ln := range s.listeners {
		_ = ln.Close()
	}
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.web.close()
	s.wg.Wait()
	return nil
}

// add starts to count a connection; false means that the server is closed.
func (s *Server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) remove(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.wg.Done()
}

// serve looks at the first byte and hands the connection on.
func (s *Server) serve(c net.Conn) {
	p := &peeked{Conn: c}
	_ = c.SetReadDeadline(time.Now().Add(firstByteTimeout))
	if n, err := c.Read(p.first[:]); n == 0 {
		_ = c.Close()
		s.remove(c)
		if err != nil {
			s.log.LogAttrs(s.ctx, slog.LevelDebug, "connection without a request", slog.Any("err", err))
		}
		return
	}
	p.left.Store(true)
	switch b := p.first[0]; {
	case b == 5:
		_ = c.SetReadDeadline(time.Now().Add(handshakeTimeout))
		if err := s.socks.ServeConn(p); err != nil {
			s.log.LogAttrs(s.ctx, slog.LevelDebug, "SOCKS connection failed", slog.Any("err", err))
		}
		if then := p.then; then != nil {
			p.then = nil
			// On a stack of its own: that of a handshake is deep, and would stay so
			// for the stream's life.
			go func() {
				then()
				s.remove(c)
			}()
			return
		}
		s.remove(c)
	case b == 4:
		s.serveSOCKS4(p)
		s.remove(c)
	case 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z':
		_ = c.SetReadDeadline(time.Time{})
		p.done = func() { s.remove(c) }
		s.web.handOver(p)
	default:
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "neither SOCKS nor HTTP", slog.Int("first", int(b)))
		_ = c.Close()
		s.remove(c)
	}
}

// authorized compares with the configured user in constant time; hashing
// hides the lengths.
func (s *Server) authorized(user, password string) bool {
	u, wu := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(s.c.Username))
	p, wp := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(s.c.Password))
	return subtle.ConstantTimeCompare(u[:], wu[:])&subtle.ConstantTimeCompare(p[:], wp[:]) == 1
}

// peeked is a connection whose first byte was read.
type peeked struct {
	net.Conn
	first [1]byte
	left  atomic.Bool // first was read and not given on yet
	once  sync.Once
	done  func() // called once by Close; may be nil
	// then goes on with the connection when the SOCKS library is done with it;
	// until then Close does nothing. A stream may live for days, and shall not
	// keep the library's buffers and a deep stack.
	then func()
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(b) > 0 && p.left.Swap(false) {
		b[0] = p.first[0]
		return 1, nil
	}
	return p.Conn.Read(b)
}

func (p *peeked) Close() error {
	if p.then != nil {
		return nil
	}
	err := p.Conn.Close()
	if p.done != nil {
		p.once.Do(p.done)
	}
	return err
}

// Passes gives the connection itself once the first byte was read again.
func (p *peeked) Passes() net.Conn {
	if p.left.Load() {
		return nil
	}
	return p.Conn
}

func (p *peeked) SetLinger(seconds int) error {
	if l, ok := p.Conn.(relay.Lingerer); ok {
		return l.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

func (p *peeked) CloseWrite() error {
	if cw, ok := p.Conn.(relay.CloseWriter); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// dial connects to a target. The connection ends with the server.
func (s *Server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if wanted, ok := ctx.Value(wantedKey{}).(context.Context); ok {
		defer context.AfterFunc(wanted, cancel)()
	}
	c, err := s.c.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &tied{Conn: c, untie: context.AfterFunc(s.ctx, func() { _ = c.Close() })}, nil
}

// wantedKey is for the context of the request that a dial of http.Transport is
// for. The transport keeps its values but not its end, and would go on dialling
// for applications that are gone.
type wantedKey struct{}

// tied is a connection that a context closes.
type tied struct {
	net.Conn
	untie func() bool
}

// Passes gives the connection that is tied.
func (t *tied) Passes() net.Conn { return t.Conn }

func (t *tied) Close() error {
	t.untie()
	return t.Conn.Close()
}

func (t *tied) SetLinger(seconds int) error {
	if l, ok := t.Conn.(relay.Lingerer); ok {
		return l.SetLinger(seconds)
	}
	return errors.ErrUnsupported
}

func (t *tied) CloseWrite() error {
	if cw, ok := t.Conn.(relay.CloseWriter); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}
