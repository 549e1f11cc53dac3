package message

import (
	"encoding/binary"
	"fmt"
)

// ProtocolID says what a proposal, notification or deletion is about.
type ProtocolID uint8

// Protocols.
const (
	ProtocolNone ProtocolID = 0
	ProtocolIKE  ProtocolID = 1
	ProtocolAH   ProtocolID = 2
	ProtocolESP  ProtocolID = 3
)

// TransformType is the kind of algorithm that a transform names.
type TransformType uint8

// Transform types, RFC 7296, Section 3.3.2.
const (
	TransformEncryption TransformType = 1
	TransformPRF        TransformType = 2
	TransformIntegrity  TransformType = 3
	TransformKE         TransformType = 4
	TransformESN        TransformType = 5
	// TransformAdditionalKE1 to 7 ask for key exchanges after the first one; their
	// IDs are those of TransformKE (RFC 9370, Section 2.2.1).
	TransformAdditionalKE1 TransformType = 6
	TransformAdditionalKE7 TransformType = 12
)

// AdditionalKE reports whether t is one of the seven additional key exchanges.
func (t TransformType) AdditionalKE() bool {
	return t >= TransformAdditionalKE1 && t <= TransformAdditionalKE7
}

// Transform IDs used here; NONE of integrity and key exchange is 0.
const (
	EncrAESGCM16         uint16 = 20
	EncrChaCha20Poly1305 uint16 = 28
	ESNNo                uint16 = 0
	ESNYes               uint16 = 1
)

// AttributeKeyLength is the only transform attribute, its value in bits.
const AttributeKeyLength uint16 = 14

// Bounds of a Security Association payload. Peers that offer everything they
// have stay below half of each.
const (
	MaxProposals  = 64
	MaxTransforms = 128
	maxAttributes = 8
)

// An SA is a Security Association payload, RFC 7296, Section 3.3.
type SA struct{ Proposals []Proposal }

// A Proposal is one that an initiator offers or a responder chose.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Last Substruc |   RESERVED    |         Proposal Length       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                        SPI (variable)                         ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                        <Transforms>                           ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Proposal struct {
	Number     uint8
	Protocol   ProtocolID
	SPI        []byte
	Transforms []Transform
}

// A Transform is one algorithm of a proposal.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Last Substruc |   RESERVED    |        Transform Length       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Transform Type |   RESERVED    |          Transform ID         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                      Transform Attributes                     ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Transform struct {
	Type       TransformType
	ID         uint16
	Attributes []TransformAttribute
}

// A TransformAttribute is a property of a transform. With the AF bit set the
// two bytes after the type are the value, else they count the value's bytes.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|A|       Attribute Type        |    AF=0  Attribute Length     |
//	|F|                             |    AF=1  Attribute Value      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                   AF=0  Attribute Value                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type TransformAttribute struct {
	Type  uint16 // 15 bits
	Short bool   // AF: Value has exactly 2 bytes
	Value []byte
}

// NewTransform makes a transform; keyBits other than 0 adds the key length.
func NewTransform(t TransformType, id uint16, keyBits int) Transform {
	tr := Transform{Type: t, ID: id}
	if keyBits != 0 {
		tr.Attributes = []TransformAttribute{{Type: AttributeKeyLength, Short: true, Value: []byte{byte(keyBits >> 8), byte(keyBits)}}}
	}
	return tr
}

// KeyLength gives the key length in bits, 0 if it has none. ok is false for
// an attribute that is not understood: such a transform "MUST be ignored"
// (RFC 7296, Section 3.3.6).
func (t *Transform) KeyLength() (bits int, ok bool) {
	for i, a := range t.Attributes {
		if a.Type != AttributeKeyLength || !a.Short || i > 0 {
			return 0, false
		}
		bits = int(a.Value[0])<<8 | int(a.Value[1])
	}
	return bits, true
}

// Type is TypeSA.
func (*SA) Type() PayloadType { return TypeSA }

func parseSA(b []byte) (*SA, error) {
	sa := new(SA)
	for more := true; more; {
		if len(sa.Proposals) == MaxProposals {
			return nil, fmt.Errorf("more than %d proposals: %w", MaxProposals, ErrSyntax)
		}
		if len(b) < 8 {
			return nil, fmt.Errorf("proposal cut off: %w", ErrSyntax)
		}
		n := int(binary.BigEndian.Uint16(b[2:])) // Proposal Length (16)
		spi := int(b[6])                         // SPI Size (8)
		count := int(b[7])                       // Num Transforms (8)
		if n < 8+spi || n > len(b) {
			return nil, fmt.Errorf("proposal of %d bytes in %d: %w", n, len(b), ErrSyntax)
		}
		switch b[0] { // Last Substruc (8): 0 for the last, 2 if more follow
		case 0:
			more = false
		case 2:
		default:
			return nil, fmt.Errorf("proposal followed by %d: %w", b[0], ErrSyntax)
		}
		p := Proposal{Number: b[4], Protocol: ProtocolID(b[5])}
		if spi > 0 {
			p.SPI = b[8 : 8+spi]
		}
		ts, err := parseTransforms(b[8+spi:n], count)
		if err != nil {
			return nil, err
		}
		p.Transforms = ts
		sa.Proposals = append(sa.Proposals, p)
		b = b[n:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes after the last proposal: %w", len(b), ErrSyntax)
	}
	return sa, nil
}

func parseTransforms(b []byte, count int) ([]Transform, error) {
	if count > MaxTransforms {
		return nil, fmt.Errorf("%d transforms: %w", count, ErrSyntax)
	}
	var ts []Transform
	for i := range count {
		if len(b) < 8 {
			return nil, fmt.Errorf("transform cut off: %w", ErrSyntax)
		}
		n := int(binary.BigEndian.Uint16(b[2:])) // Transform Length (16)
		if n < 8 || n > len(b) {
			return nil, fmt.Errorf("transform of %d bytes in %d: %w", n, len(b), ErrSyntax)
		}
		last := i == count-1
		if last != (b[0] == 0) || !last && b[0] != 3 { // Last Substruc (8): 0 or 3
			return nil, fmt.Errorf("transform followed by %d: %w", b[0], ErrSyntax)
		}
		as, err := parseAttributes(b[8:n])
		if err != nil {
			return nil, err
		}
		ts = append(ts, Transform{Type: TransformType(b[4]), ID: binary.BigEndian.Uint16(b[6:]), Attributes: as})
		b = b[n:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes after the last transform: %w", len(b), ErrSyntax)
	}
	return ts, nil
}

func parseAttributes(b []byte) ([]TransformAttribute, error) {
	var as []TransformAttribute
	for len(b) > 0 {
		if len(b) < 4 || len(as) == maxAttributes {
			return nil, fmt.Errorf("transform attributes: %w", ErrSyntax)
		}
		t := binary.BigEndian.Uint16(b)
		a := TransformAttribute{Type: t & 0x7fff, Short: t&0x8000 != 0}
		if a.Short {
			a.Value, b = b[2:4], b[4:]
		} else {
			n := int(binary.BigEndian.Uint16(b[2:]))
			if len(b) < 4+n {
				return nil, fmt.Errorf("transform attribute cut off: %w", ErrSyntax)
			}
			a.Value, b = b[4:4+n], b[4+n:]
		}
		as = append(as, a)
	}
	return as, nil
}

func (sa *SA) appendBody(b []byte) ([]byte, error) {
	if n := len(sa.Proposals); n == 0 || n > MaxProposals {
		return nil, fmt.Errorf("%d proposals: %w", n, ErrTooBig)
	}
	for i, p := range sa.Proposals {
		if len(p.SPI) > 255 || len(p.Transforms) > MaxTransforms {
			return nil, fmt.Errorf("proposal with %d transforms: %w", len(p.Transforms), ErrTooBig)
		}
		start := len(b)
		b = append(b, more(i, len(sa.Proposals), 2), 0, 0, 0,
			p.Number, byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
		b = append(b, p.SPI...)
		for j, t := range p.Transforms {
			var err error
			if b, err = t.append(b, more(j, len(p.Transforms), 3)); err != nil {
				return nil, err
			}
		}
		if len(b)-start > 0xffff {
			return nil, fmt.Errorf("proposal: %w", ErrTooBig)
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return b, nil
}

func (t *Transform) append(b []byte, last byte) ([]byte, error) {
	if len(t.Attributes) > maxAttributes {
		return nil, fmt.Errorf("%d attributes: %w", len(t.Attributes), ErrTooBig)
	}
	start := len(b)
	b = append(b, last, 0, 0, 0, byte(t.Type), 0, byte(t.ID>>8), byte(t.ID))
	for _, a := range t.Attributes {
		switch {
		case a.Short && len(a.Value) == 2:
			b = binary.BigEndian.AppendUint16(b, a.Type|0x8000)
		case !a.Short && len(a.Value) <= 0xffff:
			b = binary.BigEndian.AppendUint16(b, a.Type&0x7fff)
			b = binary.BigEndian.AppendUint16(b, uint16(len(a.Value)))
		default:
			return nil, fmt.Errorf("attribute of %d bytes: %w", len(a.Value), ErrTooBig)
		}
		b = append(b, a.Value...)
	}
	if len(b)-start > 0xffff {
		return nil, fmt.Errorf("transform: %w", ErrTooBig)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b, nil
}

// more gives the Last Substruc octet of element i of n.
func more(i, n int, follows byte) byte {
	if i == n-1 {
		return 0
	}
	return follows
}
