// Package portmsg is the bytes by which a client asks its server for ports: what
// comes to them is led to the client. docs/protocol.md, "Ports", has the format.
//
// Messages go over one stream inside the tunnel, each with its length in front.
package portmsg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// ServicePort is the TCP port of the service on the server's inner addresses.
const ServicePort = 1081

// MaxMessage bounds a message, without its length, in bytes.
const MaxMessage = 512

// maxReason bounds the text of a reply, in bytes.
const maxReason = 255

// Types of messages.
const (
	typeRequest   = 1
	typeReply     = 2
	typeKeepalive = 3
)

// IP protocol numbers, which say what a port is of.
const (
	protocolTCP = 6
	protocolUDP = 17
)

// ErrSyntax: the bytes are no message.
var ErrSyntax = errors.New("malformed message")

// A Message is a *Request, a *Reply or a *Keepalive.
type Message interface {
	appendBody(b []byte) ([]byte, error)
	parseBody(b []byte) error
}

// A Request asks for a port.
type Request struct {
	ID      uint16 // pairs request and reply
	Network string // tcp or udp
	// At is the address and port at the server; an invalid address stands for
	// the server's inner addresses.
	At netip.Addr
	// Port is not zero.
	Port uint16
	// To is the port of the client's inner address where streams and datagrams
	// are led.
	To uint16
}

// Status is what became of a request.
type Status uint8

// What can become of a request.
const (
	OK         Status = 0
	NotAllowed Status = 1 // by the server's settings
	InUse      Status = 2 // by another client or program
	Failed     Status = 3 // the server's system refuses; the reason says why
	TooMany    Status = 4 // the client has as many as it may
)

// String says it in words.
func (s Status) String() string {
	switch s {
	case OK:
		return "open"
	case NotAllowed:
		return "not allowed"
	case InUse:
		return "in use"
	case Failed:
		return "failed"
	case TooMany:
		return "too many"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// A Reply answers a request.
type Reply struct {
	ID     uint16
	Status Status
	Reason string // in words, of up to 255 bytes; for people
}

// A Keepalive says that the client is still there.
type Keepalive struct{}

func (r *Request) appendBody(b []byte) ([]byte, error) {
	network := byte(protocolTCP)
	switch r.Network {
	case "tcp":
	case "udp":
		network = protocolUDP
	default:
		return nil, fmt.Errorf("network %q: %w", r.Network, ErrSyntax)
	}
	if r.Port == 0 || r.To == 0 || r.At.Zone() != "" {
		return nil, fmt.Errorf("request for port %d, to %d: %w", r.Port, r.To, ErrSyntax)
	}
	b = append(b, typeRequest)
	b = binary.BigEndian.AppendUint16(b, r.ID)
	b = append(b, network)
	b = binary.BigEndian.AppendUint16(b, r.To)
	b = binary.BigEndian.AppendUint16(b, r.Port)
	return append(b, r.At.AsSlice()...), nil
}

func (r *Request) parseBody(b []byte) error {
	// ID (16), protocol (8), client's port (16), port (16), address (0, 32 or 128)
	if len(b) != 7 && len(b) != 7+4 && len(b) != 7+16 {
		return fmt.Errorf("request of %d bytes: %w", len(b), ErrSyntax)
	}
	r.ID = binary.BigEndian.Uint16(b)
	switch b[2] {
	case protocolTCP:
		r.Network = "tcp"
	case protocolUDP:
		r.Network = "udp"
	default:
		return fmt.Errorf("protocol %d: %w", b[2], ErrSyntax)
	}
	r.To, r.Port = binary.BigEndian.Uint16(b[3:]), binary.BigEndian.Uint16(b[5:])
	if r.To == 0 || r.Port == 0 {
		return fmt.Errorf("port 0: %w", ErrSyntax)
	}
	r.At, _ = netip.AddrFromSlice(b[7:])
	return nil
}

func (r *Reply) appendBody(b []byte) ([]byte, error) {
	b = append(b, typeReply)
	b = binary.BigEndian.AppendUint16(b, r.ID)
	b = append(b, byte(r.Status))
	return append(b, r.Reason[:min(len(r.Reason), maxReason)]...), nil
}

func (r *Reply) parseBody(b []byte) error {
	// ID (16), status (8), reason
	if len(b) < 3 || len(b) > 3+maxReason {
		return fmt.Errorf("reply of %d bytes: %w", len(b), ErrSyntax)
	}
	r.ID, r.Status, r.Reason = binary.BigEndian.Uint16(b), Status(b[2]), string(b[3:])
	return nil
}

func (*Keepalive) appendBody(b []byte) ([]byte, error) { return append(b, typeKeepalive), nil }

func (*Keepalive) parseBody(b []byte) error {
	if len(b) != 0 {
		return fmt.Errorf("keepalive of %d bytes: %w", len(b), ErrSyntax)
	}
	return nil
}

// Append appends a message with its length.
func Append(b []byte, m Message) ([]byte, error) {
	at := len(b)
	b, err := m.appendBody(append(b, 0, 0))
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2)) // fits: MaxMessage
	return b, nil
}

// Read reads one message. An error matches ErrSyntax for what is none, after
// which the stream is of no use; else it is the stream's own.
func Read(r io.Reader) (Message, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n < 1 || n > MaxMessage {
		return nil, fmt.Errorf("message of %d bytes: %w", n, ErrSyntax)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("message cut off: %w", err)
	}
	var m Message
	switch b[0] {
	case typeRequest:
		m = &Request{}
	case typeReply:
		m = &Reply{}
	case typeKeepalive:
		m = &Keepalive{}
	default:
		return nil, fmt.Errorf("message of type %d: %w", b[0], ErrSyntax)
	}
	if err := m.parseBody(b[1:]); err != nil {
		return nil, err
	}
	return m, nil
}
