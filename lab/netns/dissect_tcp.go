package netns

import (
	"encoding/binary"
	"net/netip"
	"time"
)

const flagSYN = 2

const (
	// maxLater bounds the segments of a direction that wait for an earlier one.
	maxLater = 4096
	// maxEarly bounds what a server sends before its client has said anything.
	maxEarly = 1 << 16
)

type connKey struct{ client, server netip.AddrPort }

type contents uint8

const (
	undecided contents = iota
	framed             // RFC 9329
	opaque             // TLS, HTTP, anything else
)

// A conn is one TCP connection.
type conn struct {
	contents contents
	dirs     [2]direction // from the client, from the server
}

// A direction is one half of a connection, put in order.
type direction struct {
	begun bool
	next  uint32 // sequence number of the byte to come
	later map[uint32][]byte
	buf   []byte // in order and not yet understood
	at    time.Time
}

// segment takes a TCP segment.
func (d *Dissector) segment(at time.Time, src, dst netip.AddrPort, b []byte) {
	fromServer := src.Port() == d.port
	k, i := connKey{src, dst}, 0
	if fromServer {
		k, i = connKey{dst, src}, 1
	}
	offset, flags, seq := int(b[12]>>4)*4, b[13], binary.BigEndian.Uint32(b[4:])
	if offset < 20 || offset > len(b) {
		return
	}
	c := d.conns[k]
	if flags&flagSYN != 0 {
		if c == nil || c.dirs[i].begun && c.dirs[i].next != seq+1 && !fromServer {
			c = &conn{} // the first, or the port's next use
			d.conns[k] = c
		}
		if !c.dirs[i].begun {
			c.dirs[i].begun, c.dirs[i].next = true, seq+1
		}
		seq++ // data may follow in the same segment, RFC 7413
	}
	if c == nil || c.contents == opaque {
		return
	}
	dir := &c.dirs[i]
	dir.at = at
	if payload := b[offset:]; len(payload) > 0 && dir.begun {
		if !dir.add(seq, payload) {
			d.missing++
			c.contents = opaque
			return
		}
		d.read(c, k)
	}
}

// add puts a segment in its place; it fails when too many wait.
func (r *direction) add(seq uint32, payload []byte) bool {
	if int32(seq-r.next) > 0 {
		if len(r.later) >= maxLater {
			return false
		}
		if r.later == nil {
			r.later = map[uint32][]byte{}
		}
		if len(payload) > len(r.later[seq]) {
			r.later[seq] = append([]byte(nil), payload...)
		}
		return true
	}
	r.take(seq, payload)
	for progress := true; progress && len(r.later) > 0; {
		progress = false
		for s, p := range r.later {
			if int32(s-r.next) <= 0 {
				delete(r.later, s)
				r.take(s, p)
				progress = true
			}
		}
	}
	return true
}

// take appends the part of a segment that is new.
func (r *direction) take(seq uint32, payload []byte) {
	if old := r.next - seq; int(old) < len(payload) {
		r.buf = append(r.buf, payload[old:]...)
		r.next = seq + uint32(len(payload))
	}
}

// streamPrefix starts the stream of a client, RFC 9329, Section 4.
const streamPrefix = "IKETCP"

// read takes whole lengths out of the directions' buffers. What the connection
// carries shows in the client's first bytes.
func (d *Dissector) read(c *conn, k connKey) {
	if c.contents == undecided {
		b := c.dirs[0].buf
		if len(b) < len(streamPrefix) {
			if len(c.dirs[1].buf) > maxEarly {
				d.missing++
				c.contents, c.dirs[1].buf = opaque, nil
			}
			return
		}
		switch {
		case string(b[:len(streamPrefix)]) == streamPrefix:
			c.contents = framed
			c.dirs[0].buf = b[len(streamPrefix):]
		case b[0] == 22: // a TLS handshake record
			d.tls++
			c.contents = opaque
		default:
			d.http++
			c.contents = opaque
		}
	}
	for i := range c.dirs {
		dir := &c.dirs[i]
		if c.contents == opaque {
			dir.buf, dir.later = nil, nil
			continue
		}
		from, to := k.client, k.server
		if i == 1 {
			from, to = to, from
		}
		b := dir.buf
		for len(b) >= 2 {
			// The length counts itself, RFC 9329, Section 3.
			n := int(binary.BigEndian.Uint16(b))
			if n < 2 || n > len(b) {
				if n < 2 {
					d.missing++
					c.contents = opaque
				}
				break
			}
			d.message(dir.at, "tcp", from, to, b[2:n])
			b = b[n:]
		}
		dir.buf = append(dir.buf[:0], b...)
	}
}
