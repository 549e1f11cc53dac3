package websocket

import (
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// filled fills what it is given, as the library does, at a rate in bytes a second.
type filled struct {
	left, rate int
}

func (f *filled) Read(b []byte) (int, error) {
	n := min(len(b), f.left)
	if n == 0 {
		return 0, io.EOF
	}
	f.left -= n
	time.Sleep(time.Duration(n) * time.Second / time.Duration(f.rate))
	return n, nil
}

// The beginning of a message that comes slowly is there before its end, and one
// that comes fast is read in a few pieces.
func TestGradual(t *testing.T) {
	for _, tt := range []struct {
		rate    int
		longest time.Duration // for one read
		reads   int           // at most, for 1 MiB
	}{
		{500e3, 5 * time.Millisecond, 600},
		{10e6, 3 * time.Millisecond, 100},
		{1e9, time.Millisecond, 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := gradual{piece: minPiece, message: &filled{1 << 20, tt.rate}}
			b := make([]byte, 256<<10)
			reads := 0
			for {
				start := time.Now()
				n, err := g.Read(b)
				if err == io.EOF {
					break
				}
				reads++
				if took := time.Since(start); took > tt.longest {
					t.Fatalf("%d bytes a second: %d bytes took %v", tt.rate, n, took)
				}
			}
			if reads > tt.reads {
				t.Errorf("%d bytes a second: %d reads, want %d", tt.rate, reads, tt.reads)
			}
		})
	}
}
