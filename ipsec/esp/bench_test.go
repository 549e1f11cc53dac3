package esp

import (
	"bytes"
	"fmt"
	"testing"
)

func BenchmarkSeal(b *testing.B) {
	for _, alg := range algorithms {
		for _, size := range []int{64, 1400, 65000} {
			b.Run(fmt.Sprintf("%v/%d", alg, size), func(b *testing.B) {
				out, _ := pair(b, alg, true, 0)
				inner := packet4(size)
				buf := make([]byte, 0, size+MaxOverhead)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := out.Seal(buf, inner, 0); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, alg := range algorithms {
		for _, size := range []int{64, 1400, 65000} {
			b.Run(fmt.Sprintf("%v/%d", alg, size), func(b *testing.B) {
				out, in := pair(b, alg, true, 0)
				pkt := seal(b, out, packet4(size), 0)
				buf := bytes.Clone(pkt)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					copy(buf, pkt) // it was decrypted in place
					in.window.highest = 0
					in.window.ring[0] = 0
					if _, err := in.Open(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSealBatch(b *testing.B) {
	out, _ := pair(b, AES128GCM, true, 0)
	inner := make([][]byte, 32)
	for i := range inner {
		inner[i] = packet4(1400)
	}
	buf := make([]byte, 0, len(inner)*(1400+MaxOverhead))
	pkts := make([][]byte, 0, len(inner))
	b.SetBytes(int64(len(inner) * 1400))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := out.SealBatch(buf, inner, pkts); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWindow(b *testing.B) {
	b.Run("in order", func(b *testing.B) {
		w := newWindow(DefaultWindow)
		b.ReportAllocs()
		for seq := uint64(1); b.Loop(); seq++ {
			w.fresh(seq)
			w.mark(seq)
		}
	})
	b.Run("two paths", func(b *testing.B) {
		w := newWindow(DefaultWindow)
		b.ReportAllocs()
		for seq := uint64(8000); b.Loop(); seq++ {
			w.mark(seq)
			w.mark(seq - 7999)
		}
	})
	b.Run("state", func(b *testing.B) {
		w := newWindow(DefaultWindow)
		for seq := uint64(1); seq < 5000; seq += 2 {
			w.mark(seq)
		}
		b.ReportAllocs()
		for b.Loop() {
			w.state()
		}
	})
}
