package message

import "fmt"

// An Encrypted payload, RFC 7296, Section 3.14, in the form of RFC 5282.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                     Initialization Vector                     |
//	|                            8 octets                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                            Ciphertext                         ~
//	~                   of payloads, padding, Pad Length            ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                      Integrity Check Value                    ~
//	~                           16 octets                           ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Encrypted struct {
	First PayloadType // of the payloads inside
	Flags uint8       // the octet with the C bit; Parse sets it
	Body  []byte      // IV, ciphertext and ICV
	// Offset is where Body starts in the message; all before it is the
	// additional data of the AEAD (RFC 5282, Section 5.1). Parse sets it.
	Offset int
}

// Type is TypeEncrypted.
func (*Encrypted) Type() PayloadType { return TypeEncrypted }

func (e *Encrypted) appendBody(b []byte) ([]byte, error) { return append(b, e.Body...), nil }

// ivLen and icvLen are the same for all AEADs used with IKE here.
const (
	ivLen  = 8
	icvLen = 16
)

// A Sealer encrypts payloads in place.
type Sealer interface {
	// Seal appends IV, ciphertext and ICV of plain to dst, 8 and 16 bytes more
	// than plain has. ad is authenticated with it. dst and ad may share memory.
	Seal(dst, plain, ad []byte) []byte
}

// An Opener decrypts what a Sealer made.
type Opener interface {
	// Open gives the plaintext in new memory.
	Open(body, ad []byte) ([]byte, error)
}

// AppendSealed appends the message to b with all its payloads inside an
// Encrypted payload.
func (m *Message) AppendSealed(b []byte, s Sealer) ([]byte, error) {
	first, plain, err := AppendPayloads(nil, m.Payloads)
	if err != nil {
		return nil, err
	}
	pad := min(255, max(0, m.Least-(HeaderLen+genericLen+ivLen+len(plain)+1+icvLen)))
	plain = append(plain, make([]byte, pad)...)
	plain = append(plain, byte(pad)) // Pad Length (8): an AEAD itself needs none
	n := genericLen + ivLen + len(plain) + icvLen
	if n > 0xffff {
		return nil, fmt.Errorf("encrypted payload of %d bytes: %w", n, ErrTooBig)
	}
	start := len(b)
	b = m.appendHeader(b)
	b = append(b, byte(first), 0, byte(n>>8), byte(n))
	// The length is part of what is authenticated.
	total := HeaderLen + n
	h := b[start:]
	h[16] = byte(TypeEncrypted)
	h[24], h[25], h[26], h[27] = byte(total>>24), byte(total>>16), byte(total>>8), byte(total)
	return s.Seal(b, plain, b[start:]), nil
}

// Open decrypts e, the last payload of the message raw, and reads what is in
// it. An error of o comes back as it is; the errors of ParsePayloads mean that
// the peer itself made the fault.
func (e *Encrypted) Open(raw []byte, o Opener) ([]Payload, error) {
	plain, err := e.Plain(raw, o)
	if err != nil {
		return nil, err
	}
	return ParseInner(e.First, plain)
}

// Plain decrypts e as Open does, and gives the payloads inside as bytes, for
// ParseInner.
func (e *Encrypted) Plain(raw []byte, o Opener) ([]byte, error) {
	plain, err := o.Open(e.Body, raw[:e.Offset])
	if err != nil {
		return nil, err
	}
	return unpad(plain)
}

// AppendAuthenticated appends what the AUTH payload covers of an
// IKE_INTERMEDIATE message (RFC 9242, Section 3.3.2): the message as if
// encryption added nothing, and in one piece also if it went in fragments. first
// is the type of the first payload inside, flags the octet after it in the
// generic header, and plain the payloads inside.
func (h Header) AppendAuthenticated(b []byte, first PayloadType, flags byte, plain []byte) []byte {
	start := len(b)
	b = h.appendHeader(b)
	n := genericLen + len(plain)
	b = append(b, byte(first), flags, byte(n>>8), byte(n))
	b = append(b, plain...)
	finishHeader(b[start:], TypeEncrypted)
	return b
}

// unpad takes padding off.
func unpad(plain []byte) ([]byte, error) {
	if len(plain) == 0 {
		return nil, fmt.Errorf("no pad length: %w", ErrSyntax)
	}
	pad := int(plain[len(plain)-1]) // Pad Length (8)
	if pad+1 > len(plain) {
		return nil, fmt.Errorf("padding of %d in %d bytes: %w", pad, len(plain), ErrSyntax)
	}
	return plain[:len(plain)-1-pad], nil
}

// ParseInner reads the payloads that were inside an Encrypted payload, or inside
// fragments, put together; first is the type of the first one.
func ParseInner(first PayloadType, plain []byte) ([]Payload, error) {
	ps, err := ParsePayloads(first, plain)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		if t := p.Type(); t == TypeEncrypted || t == TypeFragment {
			return nil, fmt.Errorf("encrypted payload inside another: %w", ErrSyntax)
		}
	}
	return ps, nil
}
