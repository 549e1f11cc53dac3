//go:build !race

package esp

import "testing"

// The race detector makes sync.Pool forget on purpose, hence the build tag.

func TestNoAllocations(t *testing.T) {
	for _, alg := range algorithms {
		out, in := pair(t, alg, true, 0)
		inner := packet4(1400)
		batch := [][]byte{inner, inner, inner, inner}
		buf := make([]byte, 0, 4*(1400+MaxOverhead))
		pkts, opened := make([][]byte, 0, 4), make([][]byte, 0, 4)
		for name, f := range map[string]func(){
			"Seal": func() { _, _ = out.Seal(buf, inner, 0) },
			"Seal and Open": func() {
				p, _ := out.Seal(buf, inner, 1440)
				if _, err := in.Open(p); err != nil {
					t.Error(err)
				}
			},
			"SealBatch and OpenBatch": func() {
				_, ps, _ := out.SealBatch(buf, batch, pkts)
				if o, _, dropped := in.OpenBatch(ps, opened, nil); len(o) != 4 || dropped.Total() != 0 {
					t.Errorf("%d opened, %+v dropped", len(o), dropped)
				}
			},
			"a replay": func() {
				_, _ = in.Open(rfcReplay)
			},
		} {
			if n := testing.AllocsPerRun(200, f); n != 0 {
				t.Errorf("%v: %s allocates %v times", alg, name, n)
			}
		}
	}
}

// rfcReplay is a packet to testSPI with sequence number 0, which none has.
var rfcReplay = append([]byte{0xc0, 0xff, 0xee, 0x01}, make([]byte, 60)...)
