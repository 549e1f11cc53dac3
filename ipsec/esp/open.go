package esp

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Bounds of the replay window, in packets.
const (
	DefaultWindow = 16384 // wide enough for parallel paths of unequal delay
	MinWindow     = 64    // RFC 4303, Section 3.4.3: "A window size of 64 is preferred"
	MaxWindow     = 1 << 20
)

// An Inbound is an SA that opens packets. Its methods are safe for concurrent
// use: no lock is held while a packet is decrypted.
type Inbound struct {
	spi uint32
	esn bool
	key key

	mu     sync.Mutex
	window window

	opened, octets, dummies, replayed, unauthentic, malformed atomic.Uint64
}

// Stats counts what an Inbound did since it was made.
type Stats struct {
	Opened  uint64 // packets that were genuine and new, dummies included
	Bytes   uint64 // bytes of their inner packets
	Dummies uint64 // of these, dummy packets

	Replayed    uint64 // dropped with ErrReplay
	Unauthentic uint64 // dropped with ErrAuth
	Malformed   uint64 // dropped with ErrMalformed
}

// Drops counts the packets of a batch that were dropped.
type Drops struct {
	Replayed int // with ErrReplay
	Damaged  int // with ErrAuth or ErrMalformed
}

// Total is the number of all of them.
func (d Drops) Total() int { return d.Replayed + d.Damaged }

// NewInbound makes an SA that opens. keymat has alg.KeyLen bytes, the salt
// last, and is not kept. window is the replay window in packets, from 64 to
// 1,048,576; 0 means DefaultWindow.
func NewInbound(spi uint32, alg Algorithm, keymat []byte, esn bool, window int) (*Inbound, error) {
	k, err := newKey(spi, alg, keymat)
	if err != nil {
		return nil, fmt.Errorf("inbound ESP SA: %w", err)
	}
	if window == 0 {
		window = DefaultWindow
	}
	if window < MinWindow || window > MaxWindow {
		return nil, fmt.Errorf("inbound ESP SA: a replay window of %d packets is not between %d and %d", window, MinWindow, MaxWindow)
	}
	return &Inbound{spi: spi, esn: esn, key: k, window: newWindow(window)}, nil
}

// SPI gives the SPI of packets to this SA.
func (in *Inbound) SPI() uint32 { return in.spi }

// Open checks and decrypts a packet in place and returns the inner packet,
// which is a part of pkt. TFC padding is cut off. A dummy packet gives an
// empty inner packet and no error.
//
// The error is ErrReplay, ErrAuth or ErrMalformed; pkt may be overwritten then
// too. Only a packet that authenticates moves the replay window, and of a
// packet that comes in twice at the same time one is opened.
func (in *Inbound) Open(pkt []byte) (inner []byte, err error) {
	s := scratches.Get().(*scratch)
	inner, _, err = in.open(pkt, s)
	scratches.Put(s)
	return inner, err
}

// OpenBatch opens several packets as Open does and appends the inner packets
// to out. Dummy packets are left out; what they hold, if anything, is appended
// to notes. dropped is how many failed, and why.
func (in *Inbound) OpenBatch(pkts, out, notes [][]byte) (opened, noted [][]byte, dropped Drops) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for _, p := range pkts {
		inner, note, err := in.open(p, s)
		switch {
		case errors.Is(err, ErrReplay):
			dropped.Replayed++
		case err != nil:
			dropped.Damaged++
		case len(inner) > 0:
			out = append(out, inner)
		case len(note) > 0:
			notes = append(notes, note)
		}
	}
	return out, notes, dropped
}

func (in *Inbound) open(pkt []byte, s *scratch) (inner, note []byte, err error) {
	inner, note, err = in.decrypt(pkt, s)
	switch {
	case err == nil:
		in.opened.Add(1)
		in.octets.Add(uint64(len(inner)))
		if len(inner) == 0 {
			in.dummies.Add(1)
		}
	case errors.Is(err, ErrReplay):
		in.replayed.Add(1)
	case errors.Is(err, ErrAuth):
		in.unauthentic.Add(1)
	default:
		in.malformed.Add(1)
	}
	return inner, note, err
}

func (in *Inbound) decrypt(pkt []byte, s *scratch) (inner, note []byte, err error) {
	spi, ok := SPI(pkt)
	if !ok || spi != in.spi || len(pkt) < minLen {
		return nil, nil, ErrMalformed
	}
	low, _ := SequenceLow(pkt)

	// "the receiver MUST verify that the packet contains a Sequence Number
	// that does not duplicate the Sequence Number of any other packets received
	// during the life of this SA. This SHOULD be the first ESP check".
	// RFC 4303, Section 3.4.3
	in.mu.Lock()
	seq := uint64(low)
	if in.esn {
		seq, ok = in.window.extend(low)
	}
	ok = ok && in.window.fresh(seq)
	in.mu.Unlock()
	if !ok {
		return nil, nil, ErrReplay
	}

	text := pkt[headerLen:]
	nonce := s.nonceOf(in.key.salt, pkt[headerLen-ivLen:])
	text, err = in.key.aead.Open(text[:0], nonce, text, s.associated(spi, seq, in.esn))
	if err != nil {
		return nil, nil, ErrAuth
	}

	// "The receive window is updated only if the integrity verification
	// succeeds." RFC 4303, Section 3.4.3
	in.mu.Lock()
	ok = in.window.mark(seq)
	in.mu.Unlock()
	if !ok {
		return nil, nil, ErrReplay
	}
	return strip(text)
}

// strip takes the trailer and all padding off a decrypted packet. What a
// dummy packet holds is a note.
func strip(text []byte) (inner, note []byte, err error) {
	// Pad Length (8), Next Header (8)
	pad, proto := int(text[len(text)-2]), text[len(text)-1]
	text = text[:len(text)-trailerLen]
	if pad > len(text) {
		return nil, nil, ErrMalformed
	}
	// "the receiver SHOULD inspect the Padding field." RFC 4303, Section 2.4
	for i, b := range text[len(text)-pad:] {
		if b != byte(i+1) {
			return nil, nil, ErrMalformed
		}
	}
	text = text[:len(text)-pad]

	// "Because of this, a receiver MUST be capable of discarding such packets
	// without indicating an error." RFC 4303, Section 2.6
	if proto == protoNoNext {
		return nil, text, nil
	}
	n, p, ok := innerLength(text)
	if !ok || p != proto {
		return nil, nil, ErrMalformed
	}
	return text[:n:n], nil, nil
}

// Stats gives the counters. They are read one by one while packets come in.
func (in *Inbound) Stats() Stats {
	return Stats{
		Opened:      in.opened.Load(),
		Bytes:       in.octets.Load(),
		Dummies:     in.dummies.Load(),
		Replayed:    in.replayed.Load(),
		Unauthentic: in.unauthentic.Load(),
		Malformed:   in.malformed.Load(),
	}
}

// What a ReceiveState tells, in packets.
const (
	maxState = 1024 // one by one
	farGroup = 64   // together, further down
	// stateReach is how far down it tells anything. A second of a fast link is
	// that many packets, and what a state does not tell of is sent again after a
	// move.
	stateReach = 8192
	farGroups  = (stateReach - maxState) / farGroup
	maxMissing = (maxState + farGroups) / 8 // bytes
)

// A ReceiveState says which packets of an SA have arrived.
type ReceiveState struct {
	// Highest is the highest sequence number that has arrived; 0 for none.
	Highest uint64
	// Missing is a bitmap, of bits counted from the most significant of the
	// first byte. Each of the first 1,024, i, is set if Highest-1-i has not
	// arrived; each of the 112 behind them, j, if that holds for one of the 64
	// packets from Highest-1025-64*j downwards. It has no zero bytes at its end.
	Missing []byte
}

// Arrived tells whether the packet with sequence number seq had arrived. known
// is false if seq is too far below Highest to tell, or 0.
func (r ReceiveState) Arrived(seq uint64) (arrived, known bool) {
	switch {
	case seq == 0:
		return false, false
	case seq >= r.Highest:
		return seq == r.Highest, true
	}
	i := r.Highest - 1 - seq
	far := i >= maxState
	switch {
	case i >= stateReach:
		return false, false
	case far:
		i = maxState + (i-maxState)/farGroup
	}
	missing := i/8 < uint64(len(r.Missing)) && r.Missing[i/8]&(0x80>>(i%8)) != 0
	return !missing, !missing || !far
}

// Progress is the highest sequence number that has arrived, and how many packets
// have. They are equal while none is missing.
func (in *Inbound) Progress() (highest, arrived uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.window.highest, in.window.marked
}

// State tells which of the last packets have arrived.
func (in *Inbound) State() ReceiveState {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.window.state()
}
