package tcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
)

// maxProof bounds what a visitor may send before it has shown to be no stranger: a
// frame of any size, and what was read with it.
const maxProof = len(Prefix) + 1<<17

// lengthSize is the size of a frame's length, RFC 9329, Section 3.
const lengthSize = 2

// serveStrict makes a carrier of a connection whose first packet is no stranger's,
// and has somebody else go on with the others as if nothing had been read.
func (l *Listener) serveStrict(conn net.Conn) {
	c := stream.New(transports.TCP, stream.Describe(conn), l.handler)
	c.Handshaking(conn)
	seen, rest, err := prove(conn, c, l.strict.Plausible)
	l.remove(conn)
	if err != nil {
		c.Fail(err)
		l.strict.Refuse(conn, seen)
		return
	}
	defer conn.Close()
	stream.Tune(conn)
	if conn.SetReadDeadline(time.Time{}) != nil || !l.add(c) {
		c.Fail(net.ErrClosed)
		return
	}
	defer l.remove(c)
	c.Probation()
	c.Run(resumed{frames{conn}, rest})
}

var errStranger = errors.New("nothing shows who this is")

// prove reads up to the end of a packet that admits c. It gives all that was read,
// and, when it succeeds, what lies behind that packet.
func prove(conn net.Conn, c *stream.Carrier, plausible func([]byte) bool) (seen, rest []byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(prefixTimeout)); err != nil {
		return nil, nil, err
	}
	buf := make([]byte, 0, 4<<10)
	for {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), maxProof)), buf...)
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		first := len(buf) <= len(Prefix)
		buf = buf[:len(buf)+n]
		switch {
		case first && err == nil && len(buf) <= len(Prefix) && string(buf) == Prefix[:len(buf)]:
			continue // a web server would wait, too
		case first && !(len(buf) > len(Prefix)+lengthSize && string(buf[:len(Prefix)]) == Prefix && plausible(buf[len(Prefix)+lengthSize:])):
			// A web server would not wait for more, or waits for as long as it waits.
			return buf, nil, errStranger
		case n == 0 && err != nil:
			return buf, nil, err
		}
		if whole := int(binary.BigEndian.Uint16(buf[len(Prefix):])); len(buf)-len(Prefix) < whole {
			if err != nil {
				return buf, nil, err
			}
			continue
		}
		// Receivers write over packets, and somebody else may want these bytes.
		rest, ps, _ := stream.Split(bytes.Clone(buf[len(Prefix):]), nil)
		c.Deliver(ps)
		if !c.Admitted() {
			return buf, nil, errStranger
		}
		return buf, rest, nil
	}
}

// resumed is a connection of which something was read already.
type resumed struct {
	frames
	read []byte
}

func (r resumed) ReadFrames(to *stream.Reader) error {
	return to.From(io.MultiReader(bytes.NewReader(r.read), r.Conn))
}
