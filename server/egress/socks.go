package egress

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godwit-net/godwit/tunnel/relay"
	"github.com/things-go/go-socks5"
	"github.com/things-go/go-socks5/statute"
)

const (
	// handshakeTimeout bounds greeting and request. Clients keep connections
	// ready that have sent nothing yet, so it runs from the first byte.
	handshakeTimeout = 10 * time.Second
	// lingerTimeout is how long a refused client may take to stop sending.
	lingerTimeout = 2 * time.Second
)

// ServeSOCKS serves SOCKS5 CONNECT (RFC 1928, no authentication: the tunnel
// has authenticated the client) to connections from ln until ln is closed.
// dial gets network "tcp" and host:port with names as the client wrote them;
// its context ends with the service. A client may send greeting, request and
// first data without waiting for replies, which still come one by one.
//
// It closes ln and all connections and waits for its goroutines before it
// returns. The error is the listener's; it matches net.ErrClosed after Close.
func ServeSOCKS(ln net.Listener, dial func(ctx context.Context, network, address string) (net.Conn, error), logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &service{ctx: ctx, dial: dial, log: logger}
	s.socks = socks5.NewServer(
		socks5.WithResolver(noResolver{}),
		socks5.WithConnectHandle(s.connect),
		socks5.WithBindHandle(unsupported),
		socks5.WithAssociateHandle(unsupported),
	)
	err := s.accept(ln)
	_ = ln.Close()
	stop()
	s.wg.Wait()
	return fmt.Errorf("SOCKS service: %w", err)
}

type service struct {
	ctx   context.Context // ends with the service and closes all connections
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	log   *slog.Logger
	socks *socks5.Server
	wg    sync.WaitGroup
}

func (s *service) accept(ln net.Listener) error {
	for wait := time.Duration(0); ; {
		c, err := ln.Accept()
		switch {
		case err == nil:
			wait = 0
			s.wg.Go(func() { s.serve(c) })
		case errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
			// These end by themselves.
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.log.LogAttrs(s.ctx, slog.LevelWarn, "cannot accept a connection", slog.Any("err", err))
			time.Sleep(wait)
		default:
			return err
		}
	}
}

func (s *service) serve(c net.Conn) {
	defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
	// Most connections wait here, unused, for a stream to come; they shall not
	// hold the library's buffers meanwhile.
	w := &waiting{Conn: c}
	if n, err := c.Read(w.first[:]); n == 0 || err != nil {
		_ = c.Close()
		return
	}
	w.left.Store(true)
	_ = c.SetReadDeadline(time.Now().Add(handshakeTimeout))
	if err := s.socks.ServeConn(w); err != nil {
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "SOCKS connection failed", slog.Any("err", err))
	}
	if then := w.then; then != nil {
		w.then = nil
		// On a stack of its own: that of a handshake is deep, and would stay so
		// for the stream's life.
		s.wg.Go(func() {
			defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
			then()
		})
	}
}

// waiting is a connection whose first byte was read, which starts the
// handshake's clock.
type waiting struct {
	net.Conn
	first [1]byte
	left  atomic.Bool // first was read and not given on yet
	// then goes on with the connection when the SOCKS library is done with it;
	// until then Close does nothing. A stream may live for days, and shall not
	// keep the library's buffers and a deep stack.
	then func()
}

// Close closes the connection, unless it is needed further.
func (w *waiting) Close() error {
	if w.then != nil {
		return nil
	}
	return w.Conn.Close()
}

// Passes gives the connection itself once the first byte was read again.
func (w *waiting) Passes() net.Conn {
	if w.left.Load() {
		return nil
	}
	return w.Conn
}

func (w *waiting) Read(b []byte) (int, error) {
	if len(b) > 0 && w.left.Swap(false) {
		b[0] = w.first[0]
		return 1, nil
	}
	return w.Conn.Read(b)
}

// noResolver leaves names to dial, which checks what it resolves.
type noResolver struct{}

func (noResolver) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// noBind stands in replies for BND.ADDR, which is nobody's business.
var noBind = &net.TCPAddr{IP: net.IPv4zero}

func unsupported(_ context.Context, w io.Writer, r *socks5.Request) error {
	if err := socks5.SendReply(w, statute.RepCommandNotSupported, noBind); err != nil {
		return err
	}
	return fmt.Errorf("command %d is not supported", r.Command)
}

func (s *service) connect(_ context.Context, out io.Writer, r *socks5.Request) error {
	w, ok := out.(*waiting)
	br, ok2 := r.Reader.(*bufio.Reader)
	if !ok || !ok2 {
		return errors.New("SOCKS request without a connection")
	}
	c := w.Conn
	_ = c.SetReadDeadline(time.Time{})

	host := r.RawDestAddr.FQDN
	if host == "" && r.RawDestAddr.IP != nil {
		host = r.RawDestAddr.IP.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(r.RawDestAddr.Port))
	target, err := s.dial(s.ctx, "tcp", address)
	if err != nil {
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "dial failed", slog.String("target", address), slog.Any("err", err))
		if err := socks5.SendReply(c, replyCode(err), noBind); err != nil {
			return err
		}
		linger(c)
		return nil
	}
	if err := socks5.SendReply(c, statute.RepSuccess, noBind); err != nil {
		_ = target.Close()
		return err
	}
	early, _ := br.Peek(br.Buffered())
	early = bytes.Clone(early)
	w.then = func() {
		defer context.AfterFunc(s.ctx, func() { _ = target.Close() })()
		if len(early) > 0 {
			if _, err := target.Write(early); err != nil {
				_ = target.Close()
				_ = c.Close()
				return
			}
		}
		relay.Join(c, target)
	}
	return nil
}

// linger lets a refusal arrive: closing with first data unread would reset the
// connection, and the reset would overtake the reply.
func linger(c net.Conn) {
	cw, ok := c.(relay.CloseWriter)
	if !ok || cw.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
}
