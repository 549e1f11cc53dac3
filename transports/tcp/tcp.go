// Package tcp carries ESP and IKE in a TCP stream (RFC 9329).
//
// Where the network can, a first flight that may be replayed rides in the SYN (TCP
// Fast Open, RFC 7413). Dial waits for the handshake all the same, as it shows that TCP
// passes.
//
// # Limitations
//
// TLS around the stream (RFC 9329, Appendix A) is
// left to other packages.
package tcp

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
)

// Prefix is what the originator sends once, before the first frame.
// RFC 9329, Section 4.
const Prefix = "IKETCP"

// prefixTimeout is how long a server waits for the prefix.
const prefixTimeout = 10 * time.Second

// New gives the client's transport.
func New() transports.Transport { return transport{} }

type transport struct{}

func (transport) Name() transports.Name { return transports.TCP }

// Dial connects. Prefix and first packets leave in one write. Packets of
// o.First above the MTU are left out.
func (transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	conn, connected, err := dialTCP(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("dial %s over tcp: %w", o.Remote, err)
	}
	stream.Tune(conn)
	c := stream.New(transports.TCP, stream.Describe(conn), o.Handler)
	first := []byte(Prefix)
	if o.First != nil {
		for _, p := range o.First(c.Describe()) {
			first = stream.AppendFrame(first, p)
		}
	}
	write := func() error {
		if _, err := conn.Write(first); err != nil {
			return err
		}
		return connected()
	}
	if err := stream.Within(ctx, conn, write); err != nil {
		return nil, fmt.Errorf("dial %s over tcp: %w", o.Remote, err)
	}
	go c.Run(frames{conn})
	return c, nil
}

func dialTCP(ctx context.Context, o transports.Opening) (net.Conn, func() error, error) {
	if o.Replayable {
		return transports.DialEarly(ctx, o.Network, o.Local, o.Remote)
	}
	conn, err := o.Network.DialTCP(ctx, o.Local, o.Remote)
	return conn, func() error { return nil }, err
}

// frames is a connection past its prefix.
type frames struct{ net.Conn }

func (f frames) NetConn() net.Conn { return f.Conn }

func (f frames) WriteFrames(b []byte) error {
	_, err := f.Write(b)
	return err
}

func (f frames) ReadFrames(r *stream.Reader) error { return r.From(f.Conn) }

// Strict has a Listener take nobody who does not show with the first packet to be
// no stranger.
type Strict struct {
	// Plausible tells whether a frame that begins with these bytes, behind its
	// length, may be such a packet. What has come with the prefix is all there is.
	Plausible func(first []byte) bool
	// Refuse takes over the connection of a stranger, who has sent seen by now.
	Refuse func(conn net.Conn, seen []byte)
}

// A Listener makes carriers of the connections of a net.Listener.
type Listener struct {
	ln      net.Listener
	handler transports.Handler
	strict  *Strict
	wg      sync.WaitGroup

	mu     sync.Mutex
	live   map[io.Closer]struct{} // connections before their prefix, carriers after
	closed bool
}

// NewListener serves the connections of ln, whose stream prefix is still to be
// read. Closing the Listener closes ln. Connections that send no right prefix
// within 10 s are closed without a word to h.
func NewListener(ln net.Listener, h transports.Handler) *Listener {
	return &Listener{ln: ln, handler: h, live: make(map[io.Closer]struct{})}
}

// NewStrictListener is NewListener for connections of which strangers' are somebody
// else's. The handler admits carriers; see transports.Admitting.
func NewStrictListener(ln net.Listener, h transports.Handler, s Strict) *Listener {
	l := NewListener(ln, h)
	l.strict = &s
	return l
}

// Serve accepts until Close, or until ln fails. It returns when all carriers
// have ended.
func (l *Listener) Serve() error {
	defer l.wg.Wait()
	for {
		conn, err := l.ln.Accept()
		if err != nil {
			l.Close()
			return fmt.Errorf("accept over tcp: %w", err)
		}
		if !l.add(conn) {
			conn.Close()
			continue
		}
		l.wg.Go(func() { l.serve(conn) })
	}
}

func (l *Listener) serve(conn net.Conn) {
	if l.strict != nil {
		l.serveStrict(conn)
		return
	}
	defer conn.Close()
	ok := readPrefix(conn)
	l.remove(conn)
	if !ok {
		return
	}
	stream.Tune(conn)
	c := stream.New(transports.TCP, stream.Describe(conn), l.handler)
	c.Handshaking(conn)
	if !l.add(c) {
		return
	}
	defer l.remove(c)
	c.Probation()
	c.Run(frames{conn})
}

func readPrefix(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(prefixTimeout))
	var b [len(Prefix)]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil || string(b[:]) != Prefix {
		return false
	}
	return conn.SetReadDeadline(time.Time{}) == nil
}

func (l *Listener) add(c io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.live[c] = struct{}{}
	return true
}

func (l *Listener) remove(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, c)
}

// Close ends Serve and all carriers.
func (l *Listener) Close() error {
	l.mu.Lock()
	live := l.live
	l.live = make(map[io.Closer]struct{})
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	err := l.ln.Close()
	for c := range live {
		c.Close()
	}
	return err
}
