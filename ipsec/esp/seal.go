package esp

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
)

// An Outbound is an SA that seals packets. Its methods are safe for concurrent
// use.
type Outbound struct {
	spi uint32
	esn bool
	key key

	// last is the sequence number used last. It only moves by
	// compare-and-swap and never past the limit, so no nonce is used twice.
	last atomic.Uint64
}

// NewOutbound makes an SA that seals. keymat has alg.KeyLen bytes, the salt
// last, and is not kept. esn turns on extended sequence numbers; both ends
// must agree on it.
func NewOutbound(spi uint32, alg Algorithm, keymat []byte, esn bool) (*Outbound, error) {
	k, err := newKey(spi, alg, keymat)
	if err != nil {
		return nil, fmt.Errorf("outbound ESP SA: %w", err)
	}
	return &Outbound{spi: spi, esn: esn, key: k}, nil
}

// SPI gives the SPI that packets carry, which the receiver chose.
func (o *Outbound) SPI() uint32 { return o.spi }

// Sequence gives the sequence number used last; 0 before the first packet.
func (o *Outbound) Sequence() uint64 { return o.last.Load() }

// limit is the last sequence number that may be used.
//
// "If anti-replay is enabled (the default), the sender checks to ensure that
// the counter has not cycled before inserting the new value in the Sequence
// Number field." RFC 4303, Section 3.3.3
func (o *Outbound) limit() uint64 {
	if o.esn {
		return math.MaxUint64
	}
	return math.MaxUint32
}

// take reserves up to n sequence numbers and gives the first of them and how
// many it got.
func (o *Outbound) take(n int) (first uint64, got int) {
	for {
		last := o.last.Load()
		left := o.limit() - last
		got := min(uint64(n), left)
		if got == 0 {
			return 0, 0
		}
		// "The first packet sent using a given SA will contain a sequence
		// number of 1." RFC 4303, Section 3.3.3
		if o.last.CompareAndSwap(last, last+got) {
			return last + 1, int(got)
		}
	}
}

// plan tells what protocol an inner packet is and how long it is once sealed.
func plan(inner []byte, padTo int) (proto byte, size int, err error) {
	proto = protoNoNext
	if len(inner) > 0 {
		n, p, ok := innerLength(inner)
		// The receiver cuts TFC padding off by the inner length, so a packet
		// that lies about it would not arrive as it left.
		if !ok || n != len(inner) || n > maxInner {
			return 0, 0, fmt.Errorf("inner packet: %w", ErrMalformed)
		}
		proto = p
	}
	size = len(inner) + trailerLen
	size += -size & (align - 1)
	size += headerLen + icvLen
	return proto, max(size, min(padTo, maxInner)&^(align-1)), nil
}

// Seal appends one ESP packet to dst and returns the extended slice; it
// allocates only if dst has no room for it. inner is a whole IPv4 or IPv6
// packet, or empty for a dummy packet, which the receiver drops (RFC 4303,
// Section 2.6). It must not overlap the room behind dst.
//
// With padTo > 0 the packet is padded (TFC padding, RFC 4303, Section 2.7) to
// padTo bytes, rounded down to a multiple of 4 and to no more than 65532; a
// packet that is longer anyway gets none.
//
// The error is ErrExhausted when the sequence numbers are used up and
// ErrMalformed for an inner packet whose header is wrong about its length.
// Nothing is appended then.
func (o *Outbound) Seal(dst, inner []byte, padTo int) ([]byte, error) {
	proto, size, err := plan(inner, padTo)
	if err != nil {
		return dst, err
	}
	seq, got := o.take(1)
	if got == 0 {
		return dst, ErrExhausted
	}
	dst = slices.Grow(dst, size)
	s := scratches.Get().(*scratch)
	dst = o.seal(dst, inner, proto, size, seq, seq, s)
	scratches.Put(s)
	return dst, nil
}

// SealNote is Seal for a dummy packet that holds note: to a receiver that does
// not look for one it is a dummy packet like any other. The error is
// ErrExhausted, or ErrMalformed for a note that is empty or beyond 9216 bytes.
func (o *Outbound) SealNote(dst, note []byte) ([]byte, error) {
	if len(note) == 0 || len(note) > maxNote {
		return dst, ErrMalformed
	}
	size := len(note) + trailerLen
	size += -size & (align - 1)
	size += headerLen + icvLen
	seq, got := o.take(1)
	if got == 0 {
		return dst, ErrExhausted
	}
	dst = slices.Grow(dst, size)
	s := scratches.Get().(*scratch)
	dst = o.seal(dst, note, protoNoNext, size, seq, seq, s)
	scratches.Put(s)
	return dst, nil
}

// maxNote is the longest note, in bytes: with padding it fills a packet of a network
// with jumbo frames.
const maxNote = 9216

// SealBatch seals several packets into dst, one behind the other, and appends
// a slice of each to out. buf is dst extended. It allocates only if dst or out
// has no room. inner packets follow the rules of Seal; if one is malformed,
// none is sealed. With ErrExhausted the packets that still got a sequence
// number are returned all the same.
//
// The packets lie one behind the other, and the capacity of each reaches over
// the next: a sender that takes many at once need not put them together.
func (o *Outbound) SealBatch(dst []byte, inner, out [][]byte) (buf []byte, pkts [][]byte, err error) {
	total := 0
	for i, p := range inner {
		_, size, err := plan(p, 0)
		if err != nil {
			return dst, out, fmt.Errorf("packet %d of %d: %w", i+1, len(inner), err)
		}
		total += size
	}
	// Once: growing in the middle would leave earlier slices behind.
	dst = slices.Grow(dst, total)
	seq, got := o.take(len(inner))
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for i, p := range inner[:got] {
		proto, size, _ := plan(p, 0)
		start := len(dst)
		dst = o.seal(dst, p, proto, size, seq+uint64(i), seq+uint64(i), s)
		out = append(out, dst[start:])
	}
	if got < len(inner) {
		return dst, out, ErrExhausted
	}
	return dst, out, nil
}

// seal appends a packet of size bytes, for which dst has room. The IV is an
// argument for the sake of test vectors; it is the sequence number, which RFC
// 4106, Section 3.1, allows ("a counter") and which is unique per key.
func (o *Outbound) seal(dst, inner []byte, proto byte, size int, seq, iv uint64, s *scratch) []byte {
	start := len(dst)
	// SPI (32), Sequence Number (32), IV (64)
	dst = binary.BigEndian.AppendUint32(dst, o.spi)
	dst = binary.BigEndian.AppendUint32(dst, uint32(seq))
	dst = binary.BigEndian.AppendUint64(dst, iv)
	dst = append(dst, inner...)

	// Up to 3 bytes go into Padding, which leaves what is padded for traffic
	// flow confidentiality a multiple of 4.
	room := size - headerLen - len(inner) - trailerLen - icvLen
	pad := room % align
	end := len(dst) + room - pad
	clear(dst[len(dst):end])
	dst = dst[:end]
	// "The padding bytes are initialized with a series of (unsigned, 1-byte)
	// integer values. The first padding byte appended to the plaintext is
	// numbered 1". RFC 4303, Section 2.4
	for i := range pad {
		dst = append(dst, byte(i+1))
	}
	// Pad Length (8), Next Header (8)
	dst = append(dst, byte(pad), proto)

	nonce := s.nonceOf(o.key.salt, dst[start+headerLen-ivLen:])
	aad := s.associated(o.spi, seq, o.esn)
	text := dst[start+headerLen:]
	o.key.aead.Seal(text[:0], nonce, text, aad)
	return dst[:start+size]
}
