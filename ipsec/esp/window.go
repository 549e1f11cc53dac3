package esp

import (
	"math"
	"math/bits"
)

// A window remembers which sequence numbers have arrived: a ring of words that
// is one word longer than the window, so that moving on clears whole words and
// shifts nothing (RFC 6479). The zero bits of a word that was just cleared are
// numbers above the highest, which nobody asks for.
type window struct {
	size    uint64 // packets; at least MinWindow
	highest uint64 // 0 before the first packet
	marked  uint64 // how many have arrived
	ring    []uint64
}

func newWindow(size int) window {
	return window{size: uint64(size), ring: make([]uint64, (size+63)/64+1)}
}

// bit finds the word and the mask of a sequence number.
func (w *window) bit(seq uint64) (word *uint64, mask uint64) {
	return &w.ring[seq/64%uint64(len(w.ring))], 1 << (seq % 64)
}

// bottom is the lowest sequence number inside the window, at least 1.
func (w *window) bottom() uint64 {
	if w.highest < w.size {
		return 1
	}
	return w.highest - w.size + 1
}

// extend finds the whole of an extended sequence number from its lower half:
// the only one that starts at the window's bottom or less than 2^32 above it,
// as RFC 4303, Appendix A2.1, has it in cases. ok is false past the last one.
func (w *window) extend(low uint32) (seq uint64, ok bool) {
	bottom := w.bottom()
	// The difference of lower halves is taken modulo 2^32.
	up := uint64(low - uint32(bottom))
	if up > math.MaxUint64-bottom {
		return 0, false
	}
	return bottom + up, true
}

// fresh reports that seq is not too old and has not arrived.
func (w *window) fresh(seq uint64) bool {
	if seq > w.highest {
		return true
	}
	if seq < w.bottom() {
		return false
	}
	word, mask := w.bit(seq)
	return *word&mask == 0
}

// mark notes that seq has arrived; false means that it was not fresh.
func (w *window) mark(seq uint64) bool {
	if !w.fresh(seq) {
		return false
	}
	if seq > w.highest {
		n := seq/64 - w.highest/64
		for i := range min(n, uint64(len(w.ring))) {
			w.ring[(seq/64-i)%uint64(len(w.ring))] = 0
		}
		w.highest = seq
	}
	word, mask := w.bit(seq)
	*word |= mask
	w.marked++
	return true
}

// state reports what is missing below the highest sequence number.
func (w *window) state() ReceiveState {
	r := ReceiveState{Highest: w.highest}
	if w.highest == 0 {
		return r
	}
	n := min(w.highest-w.bottom(), maxState)
	var missing [maxMissing]byte
	used := uint64(0)
	for i := uint64(0); i < n; {
		// Take a word's worth at a time, from seq downwards.
		seq := w.highest - 1 - i
		word, _ := w.bit(seq)
		k := min(seq%64+1, n-i)
		absent := ^*word << (63 - seq%64)
		for absent != 0 {
			j := uint64(bits.LeadingZeros64(absent))
			if j >= k {
				break
			}
			absent &^= 1 << (63 - j)
			missing[(i+j)/8] |= 0x80 >> ((i + j) % 8)
			used = (i+j)/8 + 1
		}
		i += k
	}
	// Further down, a bit stands for many.
	if w.highest > maxState+1 && w.gap(w.highest-1-maxState, stateReach-maxState) {
		for g := uint64(0); g < farGroups && w.highest > maxState+1+g*farGroup; g++ {
			if w.gap(w.highest-1-maxState-g*farGroup, farGroup) {
				missing[(maxState+g)/8] |= 0x80 >> (g % 8)
				used = (maxState+g)/8 + 1
			}
		}
	}
	if used > 0 {
		r.Missing = append([]byte(nil), missing[:used]...)
	}
	return r
}

// gap holds if one of the n packets from seq downwards has not arrived, or may
// not have.
func (w *window) gap(seq, n uint64) bool {
	bottom := w.bottom()
	for n > 0 && seq >= bottom {
		word, _ := w.bit(seq)
		k := min(seq%64+1, n, seq-bottom+1)
		if absent := ^*word << (63 - seq%64); bits.LeadingZeros64(absent) < int(k) {
			return true
		}
		seq, n = seq-k, n-k
	}
	return n > 0 && seq > 0 // below the window nobody knows
}
