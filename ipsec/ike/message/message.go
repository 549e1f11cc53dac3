// Package message reads and writes IKEv2 messages (RFC 7296, Section 3).
//
// It knows the layout of payloads and nothing of what they mean together. It
// decrypts nothing: an Encrypted payload is handed out as it came.
//
// Parsing copies nothing: what it returns points into the bytes it was given.
package message

import (
	"errors"
	"fmt"
)

// ErrSyntax matches every error about bytes that break RFC 7296's layout.
var ErrSyntax = errors.New("malformed IKE message")

// ErrTooBig tells that something does not fit the field that counts it.
var ErrTooBig = errors.New("too big for an IKE message")

// A CriticalError tells of a payload that the sender says must be understood
// and that is not (RFC 7296, Section 2.5).
type CriticalError struct{ Type PayloadType }

// Error names the payload.
func (e *CriticalError) Error() string {
	return fmt.Sprintf("unsupported critical payload %d", e.Type)
}

// PayloadType is the type of a payload, RFC 7296, Section 3.2.
type PayloadType uint8

// Payload types.
const (
	TypeNone        PayloadType = 0
	TypeSA          PayloadType = 33
	TypeKE          PayloadType = 34
	TypeIDi         PayloadType = 35
	TypeIDr         PayloadType = 36
	TypeCert        PayloadType = 37
	TypeCertRequest PayloadType = 38
	TypeAuth        PayloadType = 39
	TypeNonce       PayloadType = 40
	TypeNotify      PayloadType = 41
	TypeDelete      PayloadType = 42
	TypeVendorID    PayloadType = 43
	TypeTSi         PayloadType = 44
	TypeTSr         PayloadType = 45
	TypeEncrypted   PayloadType = 46
	TypeConfig      PayloadType = 47
	TypeEAP         PayloadType = 48
	TypeFragment    PayloadType = 53 // RFC 7383
)

// MaxPayloads bounds the payloads of one message. Phones and strongSwan send
// about twenty at most.
const MaxPayloads = 100

// genericLen is the length of the generic payload header.
const genericLen = 4

// A Payload is one payload of a message.
type Payload interface {
	Type() PayloadType
	appendBody(b []byte) ([]byte, error)
}

// An Unknown is a payload of a type that this package does not read.
type Unknown struct {
	PayloadType PayloadType
	Critical    bool // the C bit; Parse refuses unknown types that have it
	Body        []byte
}

// Type gives the type it came with.
func (u *Unknown) Type() PayloadType { return u.PayloadType }

func (u *Unknown) appendBody(b []byte) ([]byte, error) { return append(b, u.Body...), nil }

// A Message is a header and its payloads. An Encrypted payload or a Fragment is
// the last one.
type Message struct {
	Header
	Payloads []Payload
	// Least is the length in bytes that a sealed message is padded to, unless it
	// is in fragments; the padding has 255 bytes at most.
	Least int
}

// Parse reads a whole message. Errors match ErrSyntax, or are a *CriticalError
// or a *VersionError; with those two the header in the result is valid.
func Parse(b []byte) (*Message, error) {
	m := new(Message)
	var err error
	if m.Header, err = ParseHeader(b); err != nil {
		return m, err
	}
	m.Payloads, err = ParsePayloads(m.NextPayload, b[HeaderLen:])
	if err != nil {
		return m, err
	}
	if n := len(m.Payloads); n > 0 {
		switch e := m.Payloads[n-1].(type) {
		case *Encrypted:
			e.Offset = len(b) - len(e.Body)
		case *Fragment:
			e.Offset = len(b) - len(e.Body)
		}
	}
	return m, nil
}

// ParsePayloads reads a chain of payloads that fills b; first is the type of
// the first one.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	var ps []Payload
	for t := first; t != TypeNone; {
		if len(ps) == MaxPayloads {
			return nil, fmt.Errorf("more than %d payloads: %w", MaxPayloads, ErrSyntax)
		}
		if len(b) < genericLen {
			return nil, fmt.Errorf("payload %d cut off: %w", t, ErrSyntax)
		}
		next := PayloadType(b[0]) // Next Payload (8)
		flags := b[1]
		critical := flags&0x80 != 0       // C (1)
		n := int(b[2])<<8 | int(b[3])     // Payload Length (16), with this header
		if n < genericLen || n > len(b) { // 3.2
			return nil, fmt.Errorf("payload %d has length %d of %d: %w", t, n, len(b), ErrSyntax)
		}
		body := b[genericLen:n]
		b = b[n:]
		if t == TypeEncrypted || t == TypeFragment {
			// "the Encrypted payload, if present, is always the last payload"
			// and its Next Payload field names the first one inside.
			// RFC 7296, Section 3.14
			if len(b) != 0 {
				return nil, fmt.Errorf("bytes after the encrypted payload: %w", ErrSyntax)
			}
			if t == TypeEncrypted {
				return append(ps, &Encrypted{First: next, Flags: flags, Body: body}), nil
			}
			f, err := parseFragment(next, body)
			if err != nil {
				return nil, err
			}
			f.Flags = flags
			return append(ps, f), nil
		}
		p, err := parseBody(t, body)
		if err != nil {
			return nil, err
		}
		if _, ok := p.(*Unknown); ok && critical && (t < TypeSA || t > TypeEAP) {
			// "MUST reject the entire message"; for types of RFC 7296 the bit
			// is ignored. Section 2.5
			return nil, &CriticalError{t}
		}
		ps = append(ps, p)
		t = next
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes after the last payload: %w", len(b), ErrSyntax)
	}
	return ps, nil
}

func parseBody(t PayloadType, b []byte) (Payload, error) {
	switch t {
	case TypeSA:
		return parseSA(b)
	case TypeKE:
		return parseKE(b)
	case TypeIDi, TypeIDr:
		return parseID(b, t == TypeIDr)
	case TypeCert:
		return parseCert(b)
	case TypeCertRequest:
		return parseCertRequest(b)
	case TypeAuth:
		return parseAuth(b)
	case TypeNonce:
		return parseNonce(b)
	case TypeNotify:
		return parseNotify(b)
	case TypeDelete:
		return parseDelete(b)
	case TypeVendorID:
		return &VendorID{Data: b}, nil
	case TypeTSi, TypeTSr:
		return parseTS(b, t == TypeTSr)
	case TypeConfig:
		return parseConfig(b)
	case TypeEAP:
		return parseEAP(b)
	}
	return &Unknown{PayloadType: t, Body: b}, nil
}

// AppendPayloads appends a chain of payloads to b and gives the type of the
// first one.
func AppendPayloads(b []byte, ps []Payload) (PayloadType, []byte, error) {
	if len(ps) == 0 {
		return TypeNone, b, nil
	}
	if len(ps) > MaxPayloads {
		return 0, nil, fmt.Errorf("%d payloads: %w", len(ps), ErrTooBig)
	}
	for i, p := range ps {
		next := TypeNone
		if i+1 < len(ps) {
			next = ps[i+1].Type()
		}
		last := true
		switch e := p.(type) {
		case *Encrypted:
			next = e.First
		case *Fragment:
			next = e.First
		default:
			last = false
		}
		if last && i+1 < len(ps) {
			return 0, nil, fmt.Errorf("payload after the encrypted one: %w", ErrSyntax)
		}
		start := len(b)
		b = append(b, byte(next), 0, 0, 0)
		if u, ok := p.(*Unknown); ok && u.Critical {
			b[start+1] = 0x80
		}
		var err error
		if b, err = p.appendBody(b); err != nil {
			return 0, nil, err
		}
		n := len(b) - start
		if n > 0xffff {
			return 0, nil, fmt.Errorf("payload %d of %d bytes: %w", p.Type(), n, ErrTooBig)
		}
		b[start+2], b[start+3] = byte(n>>8), byte(n)
	}
	return ps[0].Type(), b, nil
}

// AppendBinary appends the message to b. It sets NextPayload and Length itself.
func (m *Message) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = m.appendHeader(b)
	first, b, err := AppendPayloads(b, m.Payloads)
	if err != nil {
		return nil, err
	}
	finishHeader(b[start:], first)
	return b, nil
}

// Find gives the first payload of type P.
func Find[P Payload](ps []Payload) (p P, ok bool) {
	for _, q := range ps {
		if p, ok = q.(P); ok {
			return p, true
		}
	}
	return p, false
}
