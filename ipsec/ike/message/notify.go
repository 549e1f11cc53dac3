package message

import (
	"encoding/binary"
	"fmt"
)

// NotifyType is the type of a Notify payload, RFC 7296, Section 3.10.1. Those
// below 16384 are errors.
type NotifyType uint16

// Notification types that godwit sends or acts upon.
const (
	UnsupportedCriticalPayload NotifyType = 1
	InvalidIKESPI              NotifyType = 4
	InvalidMajorVersion        NotifyType = 5
	InvalidSyntax              NotifyType = 7
	InvalidMessageID           NotifyType = 9
	InvalidSPI                 NotifyType = 11
	NoProposalChosen           NotifyType = 14
	InvalidKEPayload           NotifyType = 17
	AuthenticationFailed       NotifyType = 24
	SinglePairRequired         NotifyType = 34
	NoAdditionalSAs            NotifyType = 35
	InternalAddressFailure     NotifyType = 36
	FailedCPRequired           NotifyType = 37
	TSUnacceptable             NotifyType = 38
	InvalidSelectors           NotifyType = 39
	TemporaryFailure           NotifyType = 43
	UnacceptableAddresses      NotifyType = 40 // RFC 4555
	UnexpectedNATDetected      NotifyType = 41 // RFC 4555
	ChildSANotFound            NotifyType = 44
	StateNotFound              NotifyType = 47 // RFC 9370

	InitialContact            NotifyType = 16384
	NATDetectionSourceIP      NotifyType = 16388
	NATDetectionDestinationIP NotifyType = 16389
	Cookie                    NotifyType = 16390
	UseTransportMode          NotifyType = 16391
	RekeySA                   NotifyType = 16393
	MOBIKESupported           NotifyType = 16396 // RFC 4555, as are the next four
	NoAdditionalAddresses     NotifyType = 16399
	UpdateSAAddresses         NotifyType = 16400
	Cookie2                   NotifyType = 16401
	NoNATsAllowed             NotifyType = 16402
	AuthLifetime              NotifyType = 16403
	ChildlessSupported        NotifyType = 16418 // RFC 6023
	QuickCrashDetection       NotifyType = 16419 // RFC 6290
	FragmentationSupported    NotifyType = 16430 // RFC 7383
	SignatureHashAlgorithms   NotifyType = 16431 // RFC 7427
	IntermediateSupported     NotifyType = 16438 // RFC 9242
	AdditionalKeyExchange     NotifyType = 16441 // RFC 9370

	// Ours, from the private range: docs/protocol.md.
	Enrolment NotifyType = 40960 + 'g'
	Refused   NotifyType = 40960 + 'r'
)

var notifyNames = map[NotifyType]string{
	UnsupportedCriticalPayload: "UNSUPPORTED_CRITICAL_PAYLOAD",
	InvalidIKESPI:              "INVALID_IKE_SPI",
	InvalidMajorVersion:        "INVALID_MAJOR_VERSION",
	InvalidSyntax:              "INVALID_SYNTAX",
	InvalidMessageID:           "INVALID_MESSAGE_ID",
	InvalidSPI:                 "INVALID_SPI",
	NoProposalChosen:           "NO_PROPOSAL_CHOSEN",
	InvalidKEPayload:           "INVALID_KE_PAYLOAD",
	AuthenticationFailed:       "AUTHENTICATION_FAILED",
	SinglePairRequired:         "SINGLE_PAIR_REQUIRED",
	NoAdditionalSAs:            "NO_ADDITIONAL_SAS",
	InternalAddressFailure:     "INTERNAL_ADDRESS_FAILURE",
	FailedCPRequired:           "FAILED_CP_REQUIRED",
	TSUnacceptable:             "TS_UNACCEPTABLE",
	InvalidSelectors:           "INVALID_SELECTORS",
	TemporaryFailure:           "TEMPORARY_FAILURE",
	ChildSANotFound:            "CHILD_SA_NOT_FOUND",
	InitialContact:             "INITIAL_CONTACT",
	NATDetectionSourceIP:       "NAT_DETECTION_SOURCE_IP",
	NATDetectionDestinationIP:  "NAT_DETECTION_DESTINATION_IP",
	Cookie:                     "COOKIE",
	UseTransportMode:           "USE_TRANSPORT_MODE",
	RekeySA:                    "REKEY_SA",
	UnacceptableAddresses:      "UNACCEPTABLE_ADDRESSES",
	UnexpectedNATDetected:      "UNEXPECTED_NAT_DETECTED",
	MOBIKESupported:            "MOBIKE_SUPPORTED",
	NoAdditionalAddresses:      "NO_ADDITIONAL_ADDRESSES",
	UpdateSAAddresses:          "UPDATE_SA_ADDRESSES",
	Cookie2:                    "COOKIE2",
	NoNATsAllowed:              "NO_NATS_ALLOWED",
	AuthLifetime:               "AUTH_LIFETIME",
	ChildlessSupported:         "CHILDLESS_IKEV2_SUPPORTED",
	StateNotFound:              "STATE_NOT_FOUND",
	QuickCrashDetection:        "QUICK_CRASH_DETECTION",
	IntermediateSupported:      "INTERMEDIATE_EXCHANGE_SUPPORTED",
	AdditionalKeyExchange:      "ADDITIONAL_KEY_EXCHANGE",
	FragmentationSupported:     "IKEV2_FRAGMENTATION_SUPPORTED",
	SignatureHashAlgorithms:    "SIGNATURE_HASH_ALGORITHMS",
	Enrolment:                  "GODWIT_ENROLMENT",
	Refused:                    "GODWIT_REFUSED",
}

// String gives the name of the RFC.
func (t NotifyType) String() string {
	if s, ok := notifyNames[t]; ok {
		return s
	}
	return fmt.Sprintf("notification %d", uint16(t))
}

// IsError reports whether the type tells of an error rather than a status.
func (t NotifyType) IsError() bool { return t < 16384 }

// A Notify is a Notify payload, RFC 7296, Section 3.10.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Protocol ID  |   SPI Size    |      Notify Message Type      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                Security Parameter Index (SPI)                 ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                       Notification Data                       ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Notify struct {
	Protocol   ProtocolID
	SPI        []byte
	NotifyType NotifyType
	Data       []byte
}

// Type is TypeNotify.
func (*Notify) Type() PayloadType { return TypeNotify }

func parseNotify(b []byte) (*Notify, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("notification of %d bytes: %w", len(b), ErrSyntax)
	}
	n := &Notify{Protocol: ProtocolID(b[0]), NotifyType: NotifyType(binary.BigEndian.Uint16(b[2:]))}
	size := int(b[1]) // SPI Size (8)
	if len(b) < 4+size {
		return nil, fmt.Errorf("notification's SPI cut off: %w", ErrSyntax)
	}
	n.SPI, n.Data = b[4:4+size], b[4+size:]
	return n, nil
}

func (n *Notify) appendBody(b []byte) ([]byte, error) {
	if len(n.SPI) > 255 {
		return nil, fmt.Errorf("notification: %w", ErrTooBig)
	}
	b = append(b, byte(n.Protocol), byte(len(n.SPI)))
	b = binary.BigEndian.AppendUint16(b, uint16(n.NotifyType))
	b = append(b, n.SPI...)
	return append(b, n.Data...), nil
}

// FindNotify gives the first notification of type t, nil if there is none.
func FindNotify(ps []Payload, t NotifyType) *Notify {
	for _, p := range ps {
		if n, ok := p.(*Notify); ok && n.NotifyType == t {
			return n
		}
	}
	return nil
}

// FindError gives the first notification of an error, nil if there is none.
func FindError(ps []Payload) *Notify {
	for _, p := range ps {
		if n, ok := p.(*Notify); ok && n.NotifyType.IsError() {
			return n
		}
	}
	return nil
}

// A Delete is a Delete payload, RFC 7296, Section 3.11.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Protocol ID   |   SPI Size    |          Num of SPIs          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~               Security Parameter Index(es) (SPI)              ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// The SPI of an IKE SA is in the message header and its size here is 0.
type Delete struct {
	Protocol ProtocolID
	SPIs     []uint32 // for ESP and AH, the ones that the sender receives by
}

// Type is TypeDelete.
func (*Delete) Type() PayloadType { return TypeDelete }

func parseDelete(b []byte) (*Delete, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("deletion of %d bytes: %w", len(b), ErrSyntax)
	}
	d := &Delete{Protocol: ProtocolID(b[0])}
	size, count := int(b[1]), int(binary.BigEndian.Uint16(b[2:]))
	b = b[4:]
	if size == 0 && count == 0 && len(b) == 0 {
		return d, nil
	}
	if size != 4 || len(b) != 4*count {
		return nil, fmt.Errorf("deletion of %d SPIs of %d bytes in %d: %w", count, size, len(b), ErrSyntax)
	}
	for ; len(b) > 0; b = b[4:] {
		d.SPIs = append(d.SPIs, binary.BigEndian.Uint32(b))
	}
	return d, nil
}

func (d *Delete) appendBody(b []byte) ([]byte, error) {
	if len(d.SPIs) > 0x3fff {
		return nil, fmt.Errorf("deletion of %d SPIs: %w", len(d.SPIs), ErrTooBig)
	}
	size := byte(0)
	if len(d.SPIs) > 0 {
		size = 4
	}
	b = append(b, byte(d.Protocol), size, byte(len(d.SPIs)>>8), byte(len(d.SPIs)))
	for _, s := range d.SPIs {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return b, nil
}
