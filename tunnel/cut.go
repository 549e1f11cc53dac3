package tunnel

import "errors"

// Errors of Cut.
var (
	// ErrTooBig tells that a packet is larger than the MTU and is none that
	// may be cut.
	ErrTooBig = errors.New("packet is larger than the MTU and cannot be cut")
	// ErrMalformed tells that an oversized packet's headers contradict its size.
	ErrMalformed = errors.New("malformed IP packet")
)

// Cut appends to out packets of at most mtu bytes that carry what pkt carries.
//
// A packet within mtu is appended as it is and aliases pkt. A larger one must
// be a TCP segment in IPv4 (options allowed, no fragment) or in IPv6 without
// extension headers; its pieces are written to dst, whose grown form is buf,
// with correct lengths, identifications, sequence numbers, flags and
// checksums. pkt's own TCP checksum is neither used nor verified. Anything
// else that is too large gives ErrTooBig, also IPv4 without DF: the receiver
// would have to hold fragments for a stranger. Headers that contradict the
// packet's size give ErrMalformed.
//
// With an error, buf and segs are dst and out. Nothing is allocated when dst
// and out have the capacity. dst must not overlap pkt.
func Cut(pkt []byte, mtu int, dst []byte, out [][]byte) (buf []byte, segs [][]byte, err error) {
	if len(pkt) <= mtu {
		return dst, append(out, pkt), nil
	}
	return dst, out, ErrTooBig
}
