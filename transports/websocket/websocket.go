// Package websocket carries ESP and IKE in binary messages of a WebSocket (RFC
// 6455), over TLS 1.3 or over plain HTTP. Each message holds one or more whole
// packets framed as in RFC 9329.
//
// The first flight rides in the upgrade request, as the value of a cookie; what
// does not fit is the first message, after the answer. What
// the server answers at once rides in a cookie of the 101 response.
//
// # Limitations
//
// HTTP/2 and HTTP/3 are not used. A connection ends without a closing handshake.
package websocket

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"

	"github.com/coder/websocket"

	"context"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
)

const (
	// cookie is what the first flights travel as, in both directions: servers
	// and proxies pass cookies on and see nothing in a long one.
	cookie = "session"
	// maxFlight is how many bytes of frames go into a header, base64 not yet
	// counted: with it the line stays within the 8 KiB that servers allow.
	maxFlight = 5 << 10
	// maxMessage bounds a message that is received. Ours have 64 KiB at most.
	maxMessage = 128 << 10
)

// encodeFlight makes frames a cookie's value.
func encodeFlight(frames []byte) string { return base64.RawURLEncoding.EncodeToString(frames) }

// decodeFlight reads a cookie's value; "" holds no packets.
func decodeFlight(s string) ([]transports.Packet, error) {
	if len(s) > base64.RawURLEncoding.EncodedLen(maxFlight) {
		return nil, fmt.Errorf("first flight of %d characters: %w", len(s), transports.ErrProtocol)
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("first flight: %w: %w", transports.ErrProtocol, err)
	}
	rest, ps, err := stream.Split(b, nil)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("end within a frame: %w", transports.ErrProtocol)
	}
	if err != nil {
		return nil, fmt.Errorf("first flight: %w", err)
	}
	return ps, nil
}

// messages is a stream.Stream over a WebSocket.
type messages struct {
	ws   *websocket.Conn
	raw  net.Conn   // the socket beneath; nil when not known
	body *coalescer // the client's; nil at the server
	// early came before the messages.
	early   []transports.Packet
	deliver func([]transports.Packet)
}

func (m *messages) NetConn() net.Conn { return m.raw }

func (m *messages) WriteFrames(b []byte) error {
	if m.body == nil {
		return m.ws.Write(context.Background(), websocket.MessageBinary, b)
	}
	m.body.hold()
	err := m.ws.Write(context.Background(), websocket.MessageBinary, b)
	if flushErr := m.body.flush(); err == nil {
		err = flushErr
	}
	return err
}

func (m *messages) ReadFrames(r *stream.Reader) error {
	if len(m.early) > 0 {
		m.deliver(m.early)
		m.early = nil
	}
	m.ws.SetReadLimit(maxMessage)
	g := gradual{piece: minPiece}
	for {
		// Close ends this; a context would only cost a timer.
		typ, message, err := m.ws.Reader(context.Background())
		if err != nil {
			return err
		}
		if typ != websocket.MessageBinary {
			return fmt.Errorf("message of type %v: %w", typ, transports.ErrProtocol)
		}
		g.message = message
		if err := r.From(&g); err != nil {
			return err
		}
	}
}

// A gradual reads messages in pieces. The library fills what it is given to read
// into before it returns, and a large message may be a round trip or more in
// arriving. So a piece is what comes in about pieceTime, and the packets at its
// beginning need not wait for its end; where much comes it is large, as each one
// has its price.
type gradual struct {
	message io.Reader
	piece   int
}

const (
	minPiece  = 2 << 10
	maxPiece  = 128 << 10
	pieceTime = time.Millisecond
)

func (g *gradual) Read(b []byte) (int, error) {
	b = b[:min(len(b), g.piece)]
	start := time.Now()
	n, err := g.message.Read(b)
	switch took := time.Since(start); {
	case took > 2*pieceTime:
		g.piece = max(g.piece/2, minPiece)
	case took < pieceTime && n == g.piece:
		g.piece = min(2*g.piece, maxPiece)
	}
	return n, err
}

func (m *messages) Close() error {
	// The socket first: a TLS alert and a close frame could wait for a peer
	// that does not read.
	if m.raw != nil {
		m.raw.Close()
	}
	return m.ws.CloseNow()
}
