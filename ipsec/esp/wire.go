package esp

import (
	"encoding/binary"
	"sync"
)

// What a packet looks like, RFC 4303, Section 2, with the IV of RFC 4106,
// Section 3, and RFC 7634, Section 2:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  ---
//	|               Security Parameters Index (SPI)                 |   ^
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+   AAD, with
//	|            Sequence Number, the lower 32 bits                 |   v the upper half
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  ---
//	|                 IV, 64 bits: the whole                        |
//	|                 sequence number                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  ---
//	|                 inner IPv4 or IPv6 packet                     |   ^
//	~                                                               ~   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+   |
//	|                 TFC padding, zeros, optional                  |  encrypted
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+   |
//	| Padding 1, 2, 3 (0-3 bytes)   |  Pad Length   |  Next Header  |   v
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  ---
//	|                 ICV, 128 bits                                 |
//	~                                                               ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// The upper half of an extended sequence number is authenticated, not sent.
const (
	saltLen    = 4
	ivLen      = 8
	nonceLen   = saltLen + ivLen
	headerLen  = 4 + 4 + ivLen
	trailerLen = 2 // Pad Length and Next Header
	icvLen     = 16
	align      = 4 // Pad Length and Next Header end on a 4-byte boundary

	// minLen is a packet with nothing inside. Padding to the boundary is the
	// sender's duty; a receiver has no need of it.
	minLen = headerLen + trailerLen + icvLen
)

// MaxOverhead is the most that Seal adds to an inner packet when no padding
// was asked for, in bytes.
const MaxOverhead = headerLen + (align - 1) + trailerLen + icvLen

// NoteOverhead is what SealNote adds to a note of 2 bytes and a multiple of 4.
const NoteOverhead = headerLen + trailerLen + icvLen

// maxInner is the largest inner packet in bytes; an IPv6 packet with a longer
// payload is a jumbogram (RFC 2675), which no encapsulation carries.
const maxInner = 65535

// Next Header values, the IP protocol numbers of what is inside.
const (
	protoIPv4   = 4
	protoIPv6   = 41
	protoNoNext = 59 // a dummy packet, RFC 4303, Section 2.6
)

// SPI reads the SPI that a packet names; ok is false for less than SPI and
// sequence number, and for the reserved SPI 0.
func SPI(pkt []byte) (spi uint32, ok bool) {
	if len(pkt) < 8 {
		return 0, false
	}
	spi = binary.BigEndian.Uint32(pkt)
	return spi, spi != 0
}

// SequenceLow reads the lower 32 bits of a packet's sequence number; ok is
// false for less than SPI and sequence number.
func SequenceLow(pkt []byte) (low uint32, ok bool) {
	if len(pkt) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint32(pkt[4:]), true
}

// innerLength reads how long an IP packet says it is, and its Next Header
// value. b may be longer, not shorter. ok is false if b starts no IP packet.
func innerLength(b []byte) (n int, proto byte, ok bool) {
	if len(b) < 20 {
		return 0, 0, false
	}
	switch b[0] >> 4 {
	case 4:
		// Total Length (16) counts the header, IHL (4) is in words.
		n = int(binary.BigEndian.Uint16(b[2:]))
		ihl := int(b[0]&0xf) * 4
		return n, protoIPv4, ihl >= 20 && ihl <= n && n <= len(b)
	case 6:
		// Payload Length (16) does not count the header.
		n = 40 + int(binary.BigEndian.Uint16(b[4:]))
		return n, protoIPv6, n <= len(b)
	}
	return 0, 0, false
}

// scratch holds what the AEAD reads through its interface, which would be
// allocated for each packet otherwise.
type scratch struct {
	nonce [nonceLen]byte
	aad   [12]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// associated builds the AAD: SPI and sequence number, which has 64 bits with
// ESN and 32 without (RFC 4106, Section 5; RFC 7634, Section 2.1).
func (s *scratch) associated(spi uint32, seq uint64, esn bool) []byte {
	b := binary.BigEndian.AppendUint32(s.aad[:0], spi)
	if esn {
		return binary.BigEndian.AppendUint64(b, seq)
	}
	return binary.BigEndian.AppendUint32(b, uint32(seq))
}

// nonceOf builds the nonce: the salt and the IV from the packet.
func (s *scratch) nonceOf(salt [saltLen]byte, iv []byte) []byte {
	b := append(s.nonce[:0], salt[:]...)
	return append(b, iv[:ivLen]...)
}
