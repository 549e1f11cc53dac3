package http

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/godwit-net/godwit/transports"
)

// Every request is a POST of the secret path with a cookie that holds a ticket:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  version (1)  |     form      |          flags            |B|R|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        request number                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    session, 16 random bytes                   |
//	|                              ...                              |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|             digest of the header as it was sent, 8            |
//	|                              ...                              |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// Bodies of requests and of responses are blocks, and end between two of them:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     type      |               length of the payload           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                             number                            +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  payload ...
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	cookieName = "session"
	version    = 1
	ticketSize = 32
	headSize   = 12
	// maxPayload bounds a block's payload, in bytes: what the queue hands over at
	// once.
	maxPayload = 65536
)

// A form says what a request is for.
type form uint8

const (
	formOpen     form = iota + 1 // begins the session; the response is short
	formExchange                 // is answered at once
	formPoll                     // is answered when there is something to say
	formDown                     // has a response without end
	formUp                       // has a body without end
)

const (
	// flagResend asks for what was not acknowledged to be sent again.
	flagResend = 1 << iota
	// flagBeside marks a streamed response that is asked for beside the session's
	// first request, and may come before it.
	flagBeside
)

// A ticket is what a request says of itself.
type ticket struct {
	form    form
	resend  bool
	beside  bool
	number  uint32 // of the request within the session
	session [16]byte
	header  [8]byte // see digest
}

// encode gives the cookie's value.
func (t ticket) encode() string {
	b := make([]byte, 0, ticketSize)
	var flags uint16
	if t.resend {
		flags |= flagResend
	}
	if t.beside {
		flags |= flagBeside
	}
	b = append(b, version, byte(t.form))
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, t.number)
	b = append(b, t.session[:]...)
	b = append(b, t.header[:]...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeTicket is false for anything that is not a ticket.
func decodeTicket(s string) (t ticket, ok bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(ticketSize) {
		return t, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || b[0] != version || b[1] < byte(formOpen) || b[1] > byte(formUp) {
		return t, false
	}
	t.form = form(b[1])
	// Other flags are of versions to come.
	flags := binary.BigEndian.Uint16(b[2:])
	t.resend, t.beside = flags&flagResend != 0, flags&flagBeside != 0
	t.number = binary.BigEndian.Uint32(b[4:])
	copy(t.session[:], b[8:])
	copy(t.header[:], b[24:])
	return t, true
}

// digest sums up a request's header, so that the server can tell that somebody on
// the way has written in it. What the ends of one connection settle by themselves
// is left out: the length, and the cookie, which holds the sum.
func digest(h http.Header) (sum [8]byte) {
	var lines []string
	for name, values := range h {
		switch name {
		case "Cookie", "Content-Length", "Transfer-Encoding", "Host", "Proxy-Authorization":
			continue
		}
		for _, v := range values {
			lines = append(lines, name+":"+v)
		}
	}
	slices.Sort(lines)
	full := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	copy(sum[:], full[:])
	return sum
}

// A blockType says what a block holds. Those of unknown types are skipped.
type blockType uint8

const (
	// blockFrames holds frames of RFC 9329, whole ones; its number is one more
	// than that of the last such block in its direction, from 0 on.
	blockFrames blockType = iota
	// blockState has the number of the next blockFrames that its sender wants, all
	// before being taken, and as payload the number of the streamed request that
	// it hears right now, four bytes, 0 for none.
	blockState
	// blockEnd ends the session.
	blockEnd
)

const stateSize = 4

// A block is one block.
type block struct {
	typ     blockType
	number  uint64
	payload []byte
}

// appendBlock appends b, whose payload has maxPayload bytes at most.
func appendBlock(dst []byte, b block) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(b.typ)<<24|uint32(len(b.payload)))
	dst = binary.BigEndian.AppendUint64(dst, b.number)
	return append(dst, b.payload...)
}

// readBlock reads one block. It gives io.EOF at an end between two, and an error
// that matches transports.ErrProtocol for what cannot be.
func readBlock(r io.Reader) (b block, err error) {
	var head [headSize]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("end within a block: %w: %w", transports.ErrProtocol, err)
		}
		return b, err
	}
	b.typ = blockType(head[0])
	b.number = binary.BigEndian.Uint64(head[4:])
	n := int(binary.BigEndian.Uint32(head[:]) & 0xffffff)
	switch {
	case n > maxPayload:
		return b, fmt.Errorf("block of %d bytes: %w", n, transports.ErrProtocol)
	case b.typ == blockState && n != stateSize:
		return b, fmt.Errorf("state of %d bytes: %w", n, transports.ErrProtocol)
	case n == 0:
		return b, nil
	}
	// A length alone must not cost 64 KiB: the rest follows once something came.
	const taste = 4096
	b.payload = make([]byte, min(n, taste))
	_, err = io.ReadFull(r, b.payload)
	if err == nil && n > taste {
		first := b.payload
		b.payload = buffer(n)
		copy(b.payload, first)
		_, err = io.ReadFull(r, b.payload[taste:])
	}
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("end within a block: %w: %w", transports.ErrProtocol, io.ErrUnexpectedEOF)
		}
		return b, err
	}
	return b, nil
}
