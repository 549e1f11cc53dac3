package link

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/godwit-net/godwit/transports"
)

// What leaves twice over a path that loses a tenth arrives but for a hundredth, once.
func TestDuplicate(t *testing.T) {
	const n = 4000
	for name, tt := range map[string]struct {
		size        int
		duplicate   bool
		least, most int
	}{
		"small":      {200, true, n * 98 / 100, n},
		"small, off": {200, false, n * 85 / 100, n * 94 / 100},
		"large":      {1000, true, n * 85 / 100, n * 94 / 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newPair(t)
				defer a.link.Close()
				defer b.link.Close()
				a.link.c.Duplicate = tt.duplicate
				ab, _ := newWires(transports.UDP, a, b)
				r := rand.New(rand.NewPCG(5, 6))
				a.link.Use(&losing{wire: ab, r: r}, true, 0)
				for i := range n {
					a.link.Output(packet(uint32(i), tt.size))
					synctest.Wait()
				}
				seen := map[uint32]bool{}
				for _, v := range b.received() {
					if seen[v] {
						t.Fatalf("packet %d came twice", v)
					}
					seen[v] = true
				}
				if got := len(seen); got < tt.least || got > tt.most {
					t.Errorf("%d of %d arrived, want %d to %d", got, n, tt.least, tt.most)
				}
			})
		})
	}
}

func TestTwice(t *testing.T) {
	tcp := packet(1, 200).AppendTo(nil)
	tcp[9] = 6
	v6 := make([]byte, 80)
	v6[0], v6[6] = 0x60, protocolUDP
	for _, tt := range []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"UDP", packet(1, twiceBytes).AppendTo(nil), true},
		{"UDP over IPv6", v6, true},
		{"larger", packet(1, twiceBytes+1).AppendTo(nil), false},
		{"TCP", tcp, false},
		{"nothing", nil, false},
	} {
		if got := twice(tt.pkt); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// losing is a wire that loses a tenth of the packets.
type losing struct {
	*wire
	r *rand.Rand
}

func (w *losing) Send(ps []transports.Packet) error {
	for i := range ps {
		if w.r.Float64() < 0.1 {
			continue
		}
		if err := w.wire.Send(ps[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}
