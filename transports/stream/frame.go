// Package stream is what the encapsulations in byte streams share: the frames of
// RFC 9329, the queue before the writer, and the reader.
package stream

import (
	"encoding/binary"
	"fmt"

	"github.com/godwit-net/godwit/transports"
)

const (
	lengthSize = 2
	maxFrame   = 65535
)

// FrameSize is how many bytes AppendFrame adds for p.
func FrameSize(p transports.Packet) int {
	if p.Kind == transports.KindIKE {
		return lengthSize + transports.MarkerSize + len(p.Data)
	}
	return lengthSize + len(p.Data)
}

// AppendFrame appends p with its length and marker, RFC 9329, Section 3. Data
// above transports.MaxPacket is a mistake of the caller's and is left out, as is
// an empty packet.
func AppendFrame(dst []byte, p transports.Packet) []byte {
	if len(p.Data) > transports.MaxPacket || len(p.Data) == 0 {
		return dst
	}
	// "Length of the IKE message, including the Length field and non-ESP
	// Marker." RFC 9329, Section 3.1
	dst = binary.BigEndian.AppendUint16(dst, uint16(FrameSize(p)))
	if p.Kind == transports.KindIKE {
		dst = append(dst, 0, 0, 0, 0)
	}
	return append(dst, p.Data...)
}

// Split appends the packets of the whole frames at the start of b to ps and
// gives the bytes left over. The packets alias b. NAT-keepalives and frames
// without a packet are left out. A length that cannot be gives an error matching
// transports.ErrProtocol, and the packets before it.
func Split(b []byte, ps []transports.Packet) (rest []byte, out []transports.Packet, err error) {
	for len(b) >= lengthSize {
		n := int(binary.BigEndian.Uint16(b))
		// "The value in the Length field MUST NOT be 0 or 1. The receiver MUST
		// treat these values as fatal errors and MUST close the TCP
		// connection." RFC 9329, Section 3
		if n < lengthSize {
			return b, ps, fmt.Errorf("frame length %d: %w", n, transports.ErrProtocol)
		}
		if len(b) < n {
			break
		}
		if p, ok := transports.Classify(b[lengthSize:n:n]); ok {
			ps = append(ps, p)
		}
		b = b[n:]
	}
	return b, ps, nil
}
