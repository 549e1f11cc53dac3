package message

import (
	"encoding/binary"
	"fmt"
)

// eapMin is the length of an EAP message without a type: code, identifier and
// length.
const eapMin = 4

// An EAP is an Extensible Authentication Protocol payload, RFC 7296, Section
// 3.16. Message is the whole EAP message (RFC 3748, Section 4), whose own Length
// field is that of Message; nothing else in it is looked at here.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Code      |  Identifier   |            Length             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |  Type_Data ...
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
type EAP struct {
	Message []byte
}

// Type is TypeEAP.
func (*EAP) Type() PayloadType { return TypeEAP }

func parseEAP(b []byte) (*EAP, error) {
	e := &EAP{Message: b}
	return e, e.check()
}

// check compares the length inside with the one outside.
func (e *EAP) check() error {
	if n := len(e.Message); n < eapMin || int(binary.BigEndian.Uint16(e.Message[2:])) != n {
		return fmt.Errorf("EAP message of %d bytes with another length inside: %w", n, ErrSyntax)
	}
	return nil
}

func (e *EAP) appendBody(b []byte) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return append(b, e.Message...), nil
}
