package message

import (
	"encoding/binary"
	"fmt"
)

// A KE is a Key Exchange payload, RFC 7296, Section 3.4.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   Diffie-Hellman Group Num    |           RESERVED            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                       Key Exchange Data                       ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type KE struct {
	Group uint16
	Data  []byte
}

// Type is TypeKE.
func (*KE) Type() PayloadType { return TypeKE }

func parseKE(b []byte) (*KE, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("key exchange of %d bytes: %w", len(b), ErrSyntax)
	}
	return &KE{Group: binary.BigEndian.Uint16(b), Data: b[4:]}, nil
}

func (k *KE) appendBody(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint16(b, k.Group)
	b = append(b, 0, 0)
	return append(b, k.Data...), nil
}

// The bounds of a nonce in bytes, RFC 7296, Section 3.9.
const (
	MinNonce = 16
	MaxNonce = 256
)

// A Nonce is a Nonce payload, RFC 7296, Section 3.9: the generic header and
// 16 to 256 bytes.
type Nonce struct{ Data []byte }

// Type is TypeNonce.
func (*Nonce) Type() PayloadType { return TypeNonce }

func parseNonce(b []byte) (*Nonce, error) {
	if len(b) < MinNonce || len(b) > MaxNonce {
		return nil, fmt.Errorf("nonce of %d bytes: %w", len(b), ErrSyntax)
	}
	return &Nonce{Data: b}, nil
}

func (n *Nonce) appendBody(b []byte) ([]byte, error) {
	if len(n.Data) < MinNonce || len(n.Data) > MaxNonce {
		return nil, fmt.Errorf("nonce of %d bytes: %w", len(n.Data), ErrTooBig)
	}
	return append(b, n.Data...), nil
}

// A VendorID is a Vendor ID payload, RFC 7296, Section 3.12: the generic header
// and any bytes.
type VendorID struct{ Data []byte }

// Type is TypeVendorID.
func (*VendorID) Type() PayloadType { return TypeVendorID }

func (v *VendorID) appendBody(b []byte) ([]byte, error) { return append(b, v.Data...), nil }
