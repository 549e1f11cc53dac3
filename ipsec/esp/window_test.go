package esp

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The window against a set that forgets nothing.
func TestWindowAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(64, 200), rapid.SampledFrom([]int{64, 128, 8192})).Draw(t, "size")
		w := newWindow(size)
		// Start anywhere: the first packet may have any number.
		base := rapid.OneOf(rapid.Uint64Range(1, 100), rapid.Uint64Range(1<<32-300, 1<<32+300),
			rapid.Uint64Range(math.MaxUint64-2000, math.MaxUint64)).Draw(t, "base")
		seen := map[uint64]bool{}
		highest := uint64(0)
		for range rapid.IntRange(1, 300).Draw(t, "packets") {
			var seq uint64
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0: // a jump, now and then far
				seq = highest + rapid.Uint64Range(0, 3*uint64(size)).Draw(t, "jump")
			case 1:
				seq = base
			default: // about the top of the window
				seq = max(highest, base) + rapid.Uint64Range(0, 4).Draw(t, "up") - rapid.Uint64Range(0, uint64(size)+8).Draw(t, "down")
			}
			tooOld := highest >= uint64(size) && seq <= highest-uint64(size)
			want := seq != 0 && !seen[seq] && !tooOld
			if got := w.fresh(seq); got != want {
				t.Fatalf("fresh(%d) is %v at highest %d, want %v", seq, got, highest, want)
			}
			if rapid.Bool().Draw(t, "forged") {
				continue
			}
			if got := w.mark(seq); got != want {
				t.Fatalf("mark(%d) is %v at highest %d, want %v", seq, got, highest, want)
			}
			if want {
				seen[seq] = true
				highest = max(highest, seq)
			}
		}

		s := w.state()
		if s.Highest != highest {
			t.Fatalf("Highest is %d, want %d", s.Highest, highest)
		}
		if n := len(s.Missing); n > maxMissing || n > 0 && s.Missing[n-1] == 0 {
			t.Fatalf("Missing has %d bytes: %x", n, s.Missing)
		}
		// What lies further down is told only where it is true.
		for seq := max(highest, 10000) - 10000; seq < highest-min(highest, maxState+1); seq++ {
			if arrived, known := s.Arrived(seq); known && !seen[seq] && arrived {
				t.Fatalf("Arrived(%d) says that it is there, below %d", seq, highest)
			}
		}
		for i := uint64(0); i < min(uint64(size)-1, maxState) && i+1 < highest; i++ {
			seq := highest - 1 - i
			arrived, known := s.Arrived(seq)
			if !known || arrived != seen[seq] {
				t.Fatalf("Arrived(%d) is %v, %v below %d, want %v", seq, arrived, known, highest, seen[seq])
			}
		}
	})
}

// RFC 4303, Appendix A2.1, by its cases.
func rfcExtend(highest uint64, size uint32, low uint32) (high uint32, ok bool) {
	th, tl := uint32(highest>>32), uint32(highest)
	bl := tl - size + 1
	if tl >= size-1 { // Case A: the window is within one subspace
		if low >= bl {
			return th, true
		}
		return th + 1, th != math.MaxUint32
	}
	// Case B: the window spans two
	if low >= bl {
		if th == 0 { // there is nothing below the first subspace
			return 0, true
		}
		return th - 1, true
	}
	return th, true
}

func TestExtendAgainstRFC(t *testing.T) {
	near := rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, 400), rapid.Uint32Range(math.MaxUint32-400, math.MaxUint32))
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint32Range(64, 300).Draw(t, "size")
		th := rapid.OneOf(rapid.Uint32Range(0, 3), rapid.SampledFrom([]uint32{math.MaxUint32, math.MaxUint32 - 1})).Draw(t, "high half")
		w := newWindow(int(size))
		w.highest = uint64(th)<<32 | uint64(near.Draw(t, "low half"))
		low := near.Draw(t, "low")
		if low == 0 && w.bottom() == 1 {
			return // number 0 is never sent
		}
		seq, ok := w.extend(low)
		high, wantOK := rfcExtend(w.highest, size, low)
		if ok != wantOK || ok && (uint32(seq) != low || uint32(seq>>32) != high) {
			t.Fatalf("extend(%#x) is %#x, %v at highest %#x, want upper half %#x, %v", low, seq, ok, w.highest, high, wantOK)
		}
	})
}

func TestReceiveState(t *testing.T) {
	w := newWindow(8192)
	if s := w.state(); s.Highest != 0 || s.Missing != nil {
		t.Errorf("before the first packet: %+v", s)
	}
	for _, seq := range []uint64{1, 2, 5, 9, 10, 12} {
		w.mark(seq)
	}
	// Below 12: 11 10 9 8 7 6 5 4 | 3 2 1
	s := w.state()
	if s.Highest != 12 || !slices.Equal(s.Missing, []byte{0b10011101, 0b10000000}) {
		t.Errorf("State is %d %08b", s.Highest, s.Missing)
	}
	for seq, want := range map[uint64][2]bool{0: {false, false}, 1: {true, true}, 3: {false, true}, 12: {true, true}, 13: {false, true}} {
		if a, k := s.Arrived(seq); a != want[0] || k != want[1] {
			t.Errorf("Arrived(%d) is %v, %v", seq, a, k)
		}
	}
	w.mark(5000)
	s = w.state()
	if len(s.Missing) != maxMissing-6 {
		t.Errorf("Missing has %d bytes, want %d", len(s.Missing), maxMissing-6)
	}
	if _, known := s.Arrived(5000 - 1 - 1024); known {
		t.Error("one of 64 packets that are missing is known")
	}
	// While nothing is missing far down, a state tells of that, too.
	w = newWindow(DefaultWindow)
	for seq := uint64(1); seq < 20000; seq++ {
		w.mark(seq)
	}
	w.mark(20001)
	s = w.state()
	if !slices.Equal(s.Missing, []byte{0x80}) {
		t.Errorf("one is missing, and Missing is %x", s.Missing)
	}
	for _, d := range []uint64{2, 1024, 1025, 8000, 8192} {
		if a, k := s.Arrived(20001 - d); !a || !k {
			t.Errorf("Arrived(highest - %d) is %v, %v", d, a, k)
		}
	}
	if _, known := s.Arrived(20001 - 8193); known {
		t.Error("a packet further down than a state tells of is known")
	}
	// With one missing there, little is unknown.
	for seq := uint64(20002); seq < 22000; seq++ {
		w.mark(seq)
	}
	s = w.state()
	unknown := 0
	for seq := s.Highest - 8192; seq < s.Highest; seq++ {
		arrived, known := s.Arrived(seq)
		if !known {
			unknown++
		}
		if known && arrived != (seq != 20000) {
			t.Errorf("Arrived(%d) is %v", seq, arrived)
		}
	}
	if _, known := s.Arrived(20000); known || unknown != 64 {
		t.Errorf("%d packets are unknown, want 64 and the missing one among them", unknown)
	}
}
