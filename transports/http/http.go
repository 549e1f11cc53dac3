// Package http carries ESP and IKE in ordinary requests and responses, over TLS 1.3
// or plain HTTP, for networks whose intermediaries break what is not that. Packets
// are framed as in RFC 9329; the frames travel in numbered segments, so that it does
// not matter which request or response brings them, nor that one is lost.
//
// A session begins with a short request that holds the first flight; the answer to
// it comes in the response. Beside it a request is made whose response is streamed,
// and afterwards one whose body is. Where a stream is seen to pass, it is used. Where
// intermediaries hold whole bodies back, short requests go on: several at a time,
// and some that the server answers when it has something to say.
//
// # Limitations
//
// The client speaks HTTP/1.1 alone; the server's end works below HTTP/2, too.
package http

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
	"github.com/godwit-net/godwit/transports/web"
)

// Options of the client's end. The zero value of a field means the default.
type Options struct {
	web.Options
	// Plain has plain HTTP tried where TLS was asked for and does not pass. The path
	// can be read on the way then.
	Plain bool
}

// New gives the client's transport.
func New(o Options) transports.Transport {
	if o.Path == "" {
		o.Path = "/"
	}
	return &transport{o}
}

type transport struct{ opts Options }

func (t *transport) Name() transports.Name { return transports.HTTP }

// Dial begins a session, and returns when the server has answered its first
// request. Packets of o.First above the MTU are left out. Errors may be a
// *web.CertError or a *web.StatusError.
func (t *transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	c, err := t.dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("dial %s over http: %w", o.Remote, err)
	}
	return c, nil
}

// secureTime is how long TLS may take before plain HTTP is tried instead, where
// that is allowed.
const secureTime = 4 * time.Second

func (t *transport) dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	opts := t.opts.Options
	if !opts.TLS || !t.opts.Plain {
		s, err := connect(ctx, o, opts)
		if err != nil {
			return nil, err
		}
		return s.begin(ctx)
	}
	// The first flight is asked for once, so it has to be known which of the two
	// will carry it.
	tctx, cancel := context.WithTimeoutCause(ctx, secureTime, errors.New("TLS does not come about"))
	s, secureErr := connect(tctx, o, opts)
	cancel()
	if secureErr == nil {
		return s.begin(ctx)
	}
	if ctx.Err() != nil {
		return nil, secureErr
	}
	opts.TLS = false
	s, err := connect(ctx, o, opts)
	var c transports.Carrier
	if err == nil {
		c, err = s.begin(ctx)
	}
	if err != nil {
		// A portal names its page without TLS alone.
		return nil, errors.Join(fmt.Errorf("without TLS: %w", err), secureErr)
	}
	return c, nil
}

const (
	pollers    = 3 // polls at a time
	exchangers = 3 // exchanges at a time
	// shortLimit is how much of segments a short message holds, in bytes. One
	// segment may go beyond.
	shortLimit = 256 << 10
	// pollTime is how long the server may keep a poll, and shortTime how long a
	// short message may take besides.
	pollTime  = 20 * time.Second
	shortTime = 20 * time.Second
	// provingTime is how long a stream may take to show that it passes.
	provingTime = 3 * time.Second
	// keepAlive is the longest silence of a stream; streamTime ends one that was
	// silent for longer.
	keepAlive  = 20 * time.Second
	streamTime = 50 * time.Second
	// endTime bounds the attempt to tell the server of the session's end.
	endTime = 2 * time.Second
	// tries is how often one kind of request may fail in a row.
	tries = 3
)

// A session is the client's end of one.
type session struct {
	line
	opts    web.Options
	opening transports.Opening
	desc    transports.Description
	forward transports.Forwarding // nil: the requests go to the server itself

	id      [16]byte
	numbers atomic.Uint32
	carrier *stream.Carrier
	rt      *http.Transport
	ctx     context.Context
	cancel  context.CancelFunc
	tasks   sync.WaitGroup

	first net.Conn // for the first request

	// Below the line's lock:
	upOn, downOn bool // a streamed request is seen to pass
	pollsFrom    time.Time
	grace        time.Duration // how long a streamed response may be missing before polls begin
	resend       bool          // a response was lost
	answers      uint64        // how often the server was heard
	conns        map[net.Conn]struct{}
}

// connect opens the connection of the first request.
func connect(ctx context.Context, o transports.Opening, opts web.Options) (*session, error) {
	s := &session{opts: opts, opening: o, conns: make(map[net.Conn]struct{})}
	s.outLimit, s.inLimit, s.over = firstWindow, 2*window, make(chan struct{})
	if f, ok := o.Network.(transports.ForwardNetwork); ok && !opts.TLS {
		s.forward = f.Forward()
	}
	rand.Read(s.id[:]) // does not fail
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.rt = &http.Transport{
		DialContext:         s.dialContext,
		DisableCompression:  true,
		MaxIdleConnsPerHost: pollers + exchangers + 2,
		IdleConnTimeout:     50 * time.Second, // the server's is 60 s
		WriteBufferSize:     80 << 10,         // a chunk with a full segment
		ReadBufferSize:      64 << 10,
	}
	if s.forward != nil {
		s.rt.Proxy = func(*http.Request) (*url.URL, error) {
			return &url.URL{Scheme: "http", Host: s.forward.Host()}, nil
		}
	}
	s.closed = s.teardown
	conn, d, err := s.open(ctx)
	if err != nil {
		s.cancel()
		return nil, err
	}
	s.first, s.desc = conn, d
	return s, nil
}

// open opens one connection.
func (s *session) open(ctx context.Context) (net.Conn, transports.Description, error) {
	if s.forward == nil {
		conn, raw, d, err := s.opts.Connect(ctx, s.opening)
		if err != nil {
			return nil, d, err
		}
		return s.keep(conn, raw), d, nil
	}
	raw, err := s.forward.Dial(ctx)
	if err != nil {
		return nil, transports.Description{}, err
	}
	stream.Tune(raw)
	d := stream.Describe(raw)
	d.Destination, d.Proxy = s.opening.Remote, s.forward.Host()
	d.Authority, d.Path = s.opts.Authority(s.opening.Remote), s.opts.Path
	return s.keep(raw, raw), d, nil
}

// keep notes a connection, so that the session's end closes it.
func (s *session) keep(conn, raw net.Conn) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		raw.Close()
	} else {
		s.conns[raw] = struct{}{}
	}
	return &kept{conn, raw, s}
}

// kept is a connection of a session.
type kept struct {
	net.Conn
	raw net.Conn
	s   *session
}

// Close closes the socket first: a TLS alert could wait for a peer that does not
// read.
func (k *kept) Close() error {
	k.s.mu.Lock()
	delete(k.s.conns, k.raw)
	k.s.mu.Unlock()
	k.raw.Close()
	return k.Conn.Close()
}

// connKey is the context key of the connection that a request is to go by.
type connKey struct{}

// dialContext is http.Transport's.
func (s *session) dialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	if c, ok := ctx.Value(connKey{}).(net.Conn); ok {
		return c, nil
	}
	// The transport's own context does not end with the session.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	conn, _, err := s.open(ctx)
	if err != nil {
		return nil, &unreachable{err}
	}
	return conn, nil
}

// begin makes the first request, and starts what carries the session.
func (s *session) begin(ctx context.Context) (transports.Carrier, error) {
	s.carrier = stream.New(transports.HTTP, s.desc, s.opening.Handler)
	// The streamed response is asked for beside it. Its connection is made ready
	// while the first flight is.
	sent := make(chan struct{})
	s.tasks.Go(func() {
		c, _, err := s.open(s.ctx)
		if err != nil {
			return // whatever it is, short responses will tell
		}
		select {
		case <-sent:
			s.downStream(c)
		case <-s.ctx.Done():
			c.Close()
		}
	})
	var ps []transports.Packet
	if s.opening.First != nil {
		ps = s.opening.First(s.carrier.Describe())
	}
	close(sent)
	s.enclose(ps)
	began := time.Now()
	err := s.short(ctx, formOpen, s.first, nil)
	if err != nil {
		s.fail(net.ErrClosed)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	s.mu.Lock()
	// The streamed response should be there as well by now. If it is, polls need
	// not begin.
	s.grace = max(time.Since(began)/2, 20*time.Millisecond)
	s.pollsFrom = time.Now().Add(s.grace)
	s.mu.Unlock()
	s.tasks.Go(func() { s.carrier.Run(&s.line) })
	s.tasks.Go(s.upStream)
	for range exchangers {
		s.tasks.Go(s.exchange)
	}
	for range pollers {
		s.tasks.Go(s.poll)
	}
	return s.carrier, nil
}

// enclose makes the first segments of the first flight.
func (s *session) enclose(ps []transports.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var segment []byte
	add := func() {
		if len(segment) > 0 {
			s.out = append(s.out, segment)
			s.size += len(segment)
		}
		segment = nil
	}
	for _, p := range ps {
		if len(segment)+stream.FrameSize(p) > maxPayload {
			add()
		}
		segment = stream.AppendFrame(segment, p)
	}
	add()
}

// teardown ends all that carries the session, when the server has been told.
func (s *session) teardown() {
	go func() {
		s.mu.Lock()
		began, fin := s.carrier != nil && s.base+s.taken+s.unsent > 0, s.fin
		s.mu.Unlock()
		if began && !fin {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), endTime)
			_ = s.short(ctx, formExchange, nil, &block{typ: blockEnd}) // or it finds out by itself
			cancel()
		}
		s.cancel()
		s.mu.Lock()
		conns := s.conns
		s.conns = nil
		s.mu.Unlock()
		for c := range conns {
			c.Close()
		}
		s.rt.CloseIdleConnections()
	}()
}
