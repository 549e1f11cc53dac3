package message

import (
	"encoding/binary"
	"fmt"
)

// HeaderLen is the length of the IKE header in bytes.
const HeaderLen = 28

// Version2 is the version octet of IKEv2: major 2, minor 0.
const Version2 = 0x20

// ExchangeType is the type of an exchange, RFC 7296, Section 3.1.
type ExchangeType uint8

// Exchange types.
const (
	IKESAInit     ExchangeType = 34
	IKEAuth       ExchangeType = 35
	CreateChildSA ExchangeType = 36
	Informational ExchangeType = 37

	IKEIntermediate ExchangeType = 43 // RFC 9242
	IKEFollowupKE   ExchangeType = 44 // RFC 9370
)

// String gives the name of RFC 7296, 9242 or 9370.
func (e ExchangeType) String() string {
	switch e {
	case IKESAInit:
		return "IKE_SA_INIT"
	case IKEAuth:
		return "IKE_AUTH"
	case CreateChildSA:
		return "CREATE_CHILD_SA"
	case Informational:
		return "INFORMATIONAL"
	case IKEIntermediate:
		return "IKE_INTERMEDIATE"
	case IKEFollowupKE:
		return "IKE_FOLLOWUP_KE"
	}
	return fmt.Sprintf("exchange %d", uint8(e))
}

// The bits of Header.Flags.
const (
	FlagInitiator = 0x08 // sent by the original initiator of the IKE SA
	FlagVersion   = 0x10 // the sender could speak a higher major version
	FlagResponse  = 0x20
)

// A Header is the IKE header.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Initiator's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Responder's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          Message ID                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                            Length                             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Header struct {
	InitiatorSPI, ResponderSPI uint64
	NextPayload                PayloadType
	Version                    uint8
	Exchange                   ExchangeType
	Flags                      uint8
	ID                         uint32
	Length                     uint32
}

// Response reports whether the message is a response.
func (h *Header) Response() bool { return h.Flags&FlagResponse != 0 }

// FromInitiator reports whether the IKE SA's original initiator sent it.
func (h *Header) FromInitiator() bool { return h.Flags&FlagInitiator != 0 }

// A VersionError tells of a major version other than 2.
type VersionError struct{ Major uint8 }

// Error names the version.
func (e *VersionError) Error() string { return fmt.Sprintf("IKE version %d", e.Major) }

// ParseHeader reads the header of a message that fills b.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, fmt.Errorf("%d bytes: %w", len(b), ErrSyntax)
	}
	h := Header{
		InitiatorSPI: binary.BigEndian.Uint64(b[0:]),
		ResponderSPI: binary.BigEndian.Uint64(b[8:]),
		NextPayload:  PayloadType(b[16]),
		Version:      b[17],
		Exchange:     ExchangeType(b[18]),
		Flags:        b[19],
		ID:           binary.BigEndian.Uint32(b[20:]),
		Length:       binary.BigEndian.Uint32(b[24:]), // with this header
	}
	if h.Version>>4 != 2 {
		return h, &VersionError{h.Version >> 4}
	}
	if uint64(h.Length) != uint64(len(b)) {
		return h, fmt.Errorf("header says %d bytes of %d: %w", h.Length, len(b), ErrSyntax)
	}
	if h.InitiatorSPI == 0 {
		// "This value MUST NOT be zero." RFC 7296, Section 3.1
		return h, fmt.Errorf("initiator's SPI is zero: %w", ErrSyntax)
	}
	return h, nil
}

// appendHeader leaves NextPayload and Length to finishHeader.
func (h *Header) appendHeader(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.InitiatorSPI)
	b = binary.BigEndian.AppendUint64(b, h.ResponderSPI)
	b = append(b, 0, h.Version, byte(h.Exchange), h.Flags)
	b = binary.BigEndian.AppendUint32(b, h.ID)
	return append(b, 0, 0, 0, 0)
}

func finishHeader(b []byte, first PayloadType) {
	b[16] = byte(first)
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
}
