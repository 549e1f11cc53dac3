package message

import (
	"encoding/binary"
	"fmt"
)

// MaxFragments bounds the fragments of one message, in both directions.
const MaxFragments = 64

// fragmentLen is the length of the fields between the generic header and the
// initialization vector.
const fragmentLen = 4

// A Fragment is an Encrypted Fragment payload, RFC 7383, Section 2.5.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        Fragment Number        |        Total Fragments        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                     Initialization Vector                     |
//	|                            8 octets                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                            Ciphertext                         ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                      Integrity Check Value                    ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Fragment struct {
	First  PayloadType // of the payloads inside; TypeNone except in fragment 1
	Flags  uint8       // the octet with the C bit; Parse sets it
	Number uint16      // from 1
	Total  uint16      // at most MaxFragments
	Body   []byte      // IV, ciphertext and ICV
	// Offset is where Body starts in the message; Parse sets it.
	Offset int
}

// Type is TypeFragment.
func (*Fragment) Type() PayloadType { return TypeFragment }

func (f *Fragment) appendBody(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint16(b, f.Number)
	b = binary.BigEndian.AppendUint16(b, f.Total)
	return append(b, f.Body...), nil
}

func parseFragment(first PayloadType, b []byte) (*Fragment, error) {
	if len(b) < fragmentLen {
		return nil, fmt.Errorf("fragment of %d bytes: %w", len(b), ErrSyntax)
	}
	f := &Fragment{
		First: first, Number: binary.BigEndian.Uint16(b), Total: binary.BigEndian.Uint16(b[2:]), Body: b[fragmentLen:],
	}
	// "Fragment Number (2 octets) [...] MUST be less than or equal to Total
	// Fragments"; "In all fragments except the first, this field MUST be set to
	// zero" (Next Payload). Section 2.5
	if f.Number == 0 || f.Number > f.Total || f.Total > MaxFragments || f.Number > 1 && first != TypeNone {
		return nil, fmt.Errorf("fragment %d of %d: %w", f.Number, f.Total, ErrSyntax)
	}
	return f, nil
}

// Open decrypts f, the last payload of the message raw, and gives its part of
// the payloads. An error of o comes back as it is.
func (f *Fragment) Open(raw []byte, o Opener) ([]byte, error) {
	plain, err := o.Open(f.Body, raw[:f.Offset])
	if err != nil {
		return nil, err
	}
	return unpad(plain)
}

// AppendFragments gives the messages that carry m's payloads, one where it has
// at most size bytes whole, else fragments of at most size bytes each. size has
// to be above 100.
func (m *Message) AppendFragments(s Sealer, size int) ([][]byte, error) {
	first, plain, err := AppendPayloads(nil, m.Payloads)
	if err != nil {
		return nil, err
	}
	if HeaderLen+genericLen+ivLen+len(plain)+1+icvLen <= size {
		b, err := m.AppendSealed(nil, s)
		return [][]byte{b}, err
	}
	room := size - HeaderLen - genericLen - fragmentLen - ivLen - 1 - icvLen
	total := (len(plain) + room - 1) / room
	if total > MaxFragments {
		return nil, fmt.Errorf("%d fragments: %w", total, ErrTooBig)
	}
	var all [][]byte
	for i := range total {
		part := plain[i*room : min((i+1)*room, len(plain))]
		n := genericLen + fragmentLen + ivLen + len(part) + 1 + icvLen
		b := m.appendHeader(make([]byte, 0, HeaderLen+n))
		b = append(b, byte(first), 0, byte(n>>8), byte(n), 0, byte(i+1), 0, byte(total))
		b[16] = byte(TypeFragment)
		binary.BigEndian.PutUint32(b[24:], uint32(HeaderLen+n))
		first = TypeNone
		all = append(all, s.Seal(b, append(part[:len(part):len(part)], 0), b))
	}
	return all, nil
}
