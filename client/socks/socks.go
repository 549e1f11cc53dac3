// Package socks asks the SOCKS5 service inside the tunnel (RFC 1928) for a
// connection.
//
// # Limitations
//
// CONNECT without authentication only: the tunnel has authenticated the peer.
package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"

	"github.com/godwit-net/godwit/client/front"
)

// Values of RFC 1928, Sections 3 to 6.
const (
	version      = 5
	methodNone   = 0
	cmdConnect   = 1
	addrIPv4     = 1
	addrName     = 3
	addrIPv6     = 4
	maxName      = 255
	replySuccess = 0
)

// A ReplyError is a refusal by the far end. It matches the error of package
// front that says the same.
type ReplyError struct{ Code byte } // the REP field of RFC 1928, Section 6

var replies = map[byte]struct {
	text string
	is   error
}{
	1: {"general failure", nil},
	2: {"not allowed by the server's rules", front.ErrNotAllowed},
	3: {"network unreachable", front.ErrNetworkUnreachable},
	4: {"host unreachable", front.ErrHostUnreachable},
	5: {"connection refused", front.ErrRefused},
	6: {"timed out", front.ErrTimeout},
	7: {"command not supported", nil},
	8: {"address type not supported", nil},
}

// Error gives the RFC's words for the code.
func (e *ReplyError) Error() string {
	if r, ok := replies[e.Code]; ok {
		return r.text
	}
	return "SOCKS reply " + strconv.Itoa(int(e.Code))
}

// Unwrap gives the error of package front for the code, or nil.
func (e *ReplyError) Unwrap() error { return replies[e.Code].is }

// ErrProtocol: the far end does not speak SOCKS5 as it should.
var ErrProtocol = errors.New("the peer broke the rules of SOCKS5")

// Connect asks the SOCKS5 server at the other end of conn to connect to
// address, a host:port in which host may be a name. Greeting and request leave
// in one write, so it takes a single round trip. Of what comes in it reads
// only the two replies. Deadlines are the caller's; after an error conn is of
// no more use.
//
// A refusal gives a *ReplyError, broken replies ErrProtocol.
func Connect(conn net.Conn, address string) error {
	request, err := AppendConnect(nil, address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	if _, err := conn.Write(request); err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	if err := readReplies(conn); err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	return nil
}

// AppendConnect appends the greeting and a CONNECT request for address to b.
func AppendConnect(b []byte, address string) ([]byte, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return b, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return b, fmt.Errorf("port %q is not between 1 and 65535", service)
	}
	// VER, NMETHODS, METHODS; VER, CMD, RSV
	out := append(b, version, 1, methodNone, version, cmdConnect, 0)
	// ATYP, DST.ADDR. An address with a zone means nothing elsewhere.
	ip, err := netip.ParseAddr(host)
	switch ip = ip.Unmap(); {
	case err == nil && ip.Zone() != "":
		return b, errors.New("an address with a zone cannot be reached from elsewhere")
	case err == nil && ip.Is4():
		out = append(append(out, addrIPv4), ip.AsSlice()...)
	case err == nil:
		out = append(append(out, addrIPv6), ip.AsSlice()...)
	case host == "" || len(host) > maxName:
		return b, fmt.Errorf("a name has 1 to %d bytes, not %d", maxName, len(host))
	default:
		out = append(append(out, addrName, byte(len(host))), host...)
	}
	// DST.PORT
	return binary.BigEndian.AppendUint16(out, uint16(port)), nil
}

// readReplies reads the choice of the method and the reply to the request.
func readReplies(r io.Reader) error {
	var b [maxName + 2]byte
	// VER, METHOD
	if err := read(r, b[:2]); err != nil {
		return err
	}
	if b[0] != version || b[1] != methodNone {
		return fmt.Errorf("%w: answer %x to the greeting", ErrProtocol, b[:2])
	}
	// VER, REP, RSV, ATYP, and the first byte of BND.ADDR, which is its length
	// for a name
	if err := read(r, b[:5]); err != nil {
		return err
	}
	code, rest := b[1], 0
	switch {
	case b[0] != version:
		return fmt.Errorf("%w: version %d", ErrProtocol, b[0])
	case b[3] == addrIPv4:
		rest = 4 - 1 + 2
	case b[3] == addrIPv6:
		rest = 16 - 1 + 2
	case b[3] == addrName:
		rest = int(b[4]) + 2
	default:
		return fmt.Errorf("%w: address type %d", ErrProtocol, b[3])
	}
	if code != replySuccess {
		return &ReplyError{Code: code}
	}
	return read(r, b[:rest])
}

func read(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
