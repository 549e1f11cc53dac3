package transports

import "encoding/binary"

// MarkerSize is the size of the non-ESP marker, four zero bytes where an ESP
// packet has its SPI: RFC 3948, Section 2.2, and RFC 9329, Section 3.1.
const MarkerSize = 4

// Classify tells what one datagram of RFC 3948 or one frame of RFC 9329 holds.
// The packet aliases b. It is false for NAT-keepalives and for what holds nothing.
func Classify(b []byte) (Packet, bool) {
	switch {
	case len(b) == 0, len(b) == 1 && b[0] == 0xFF:
		return Packet{}, false
	case len(b) >= MarkerSize && binary.BigEndian.Uint32(b) == 0:
		return Packet{Kind: KindIKE, Data: b[MarkerSize:]}, len(b) > MarkerSize
	}
	return Packet{Kind: KindESP, Data: b}, true
}
