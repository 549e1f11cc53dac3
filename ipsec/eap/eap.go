// Package eap speaks EAP (RFC 3748) with the method MSCHAPv2
// (draft-kamath-pppext-eap-mschapv2-02, RFC 2759), as server and as peer.
//
// MSCHAPv2 is weak: who sees an exchange can search for the password. It is here
// for clients that know nothing better, and only inside an IKE SA whose server
// has proven itself by other means (RFC 7296, Section 2.16).
//
// Both ends are state machines without I/O; the carrier (IKE_AUTH) repeats what
// is lost.
package eap

import (
	"encoding/binary"
	"errors"
	"log/slog"
)

// ErrFormat tells of bytes that are no EAP packet, or not one of ours.
var ErrFormat = errors.New("malformed EAP packet")

// ErrRefused tells that the name or the password is wrong.
var ErrRefused = errors.New("wrong name or password")

// ErrProof tells a peer that the server did not prove to know the password.
var ErrProof = errors.New("the server does not know the password")

// ErrMethod tells a peer that the server insists on another method than MSCHAPv2.
var ErrMethod = errors.New("the server wants another EAP method than MSCHAPv2")

// A Secret is a password or key. It never shows in logs or in %v.
type Secret []byte

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("redacted") }

// String hides the secret.
func (Secret) String() string { return "redacted" }

// GoString hides the secret.
func (Secret) GoString() string { return "redacted" }

// Codes of packets, RFC 3748, Section 4.
const (
	CodeRequest  uint8 = 1
	CodeResponse uint8 = 2
	CodeSuccess  uint8 = 3
	CodeFailure  uint8 = 4
)

// Types of requests and responses, RFC 3748, Section 5.
const (
	TypeIdentity     uint8 = 1
	TypeNotification uint8 = 2
	TypeNak          uint8 = 3
	TypeMSCHAPv2     uint8 = 26
)

// maxPacket bounds packets: names and messages of MSCHAPv2 are short.
const maxPacket = 1024

// maxRounds bounds the packets of one conversation; four are needed.
const maxRounds = 10

// A Packet is an EAP packet, RFC 3748, Section 4.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Code      |  Identifier   |            Length             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |  Type-Data ...
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// Success and Failure have no Type and no Data.
type Packet struct {
	Code, ID, Type uint8
	Data           []byte
}

// Parse reads a packet that fills b; Data points into b. The error is ErrFormat.
func Parse(b []byte) (Packet, error) {
	if len(b) < 4 || len(b) > maxPacket || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return Packet{}, ErrFormat
	}
	p := Packet{Code: b[0], ID: b[1]}
	switch p.Code {
	case CodeRequest, CodeResponse:
		if len(b) < 5 {
			return Packet{}, ErrFormat
		}
		p.Type, p.Data = b[4], b[5:]
	case CodeSuccess, CodeFailure:
		if len(b) != 4 {
			return Packet{}, ErrFormat
		}
	default:
		return Packet{}, ErrFormat
	}
	return p, nil
}

// Append appends the packet to b. Data has to be shorter than 1,000 bytes.
func (p Packet) Append(b []byte) []byte {
	if p.Code != CodeRequest && p.Code != CodeResponse {
		return append(b, p.Code, p.ID, 0, 4)
	}
	n := 5 + len(p.Data)
	b = append(b, p.Code, p.ID, byte(n>>8), byte(n), p.Type)
	return append(b, p.Data...)
}
