package link

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// TestHearBy has each direction go by a carrier of its own: what comes by the one is the
// answer to what left by the other, if the link knows that.
func TestHearBy(t *testing.T) {
	for _, known := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newPair(t)
			defer a.link.Close()
			defer b.link.Close()
			up, upBack := newWires(transports.UDP, a, b)
			down, downBack := newWires(transports.UDP, a, b)
			a.link.Use(up, true, 0)
			b.link.Use(downBack, true, 0)
			if known {
				a.link.HearBy(up, down)
				b.link.HearBy(downBack, upBack)
			}
			for n := range uint32(50) {
				a.link.Output(packet(n, 200))
				time.Sleep(MinSilence / 3)
			}
			synctest.Wait()
			if got := len(b.received()); got != 50 {
				t.Errorf("%d of 50 packets came", got)
			}
			if got := a.silences.Load(); (got == 0) != known {
				t.Errorf("the way down is known: %v; silences: %d", known, got)
			}
			if by := b.link.WayBack(upBack); (by == transports.Carrier(downBack)) != known {
				t.Errorf("the way down is known: %v; what comes up is answered down: %v", known, by == transports.Carrier(downBack))
			}
			if by := b.link.WayBack(downBack); by != transports.Carrier(downBack) {
				t.Error("what comes by the carrier in use is not answered by it")
			}
			// Another carrier has both directions again.
			both, bothBack := newWires(transports.UDP, a, b)
			a.link.Use(both, true, 0)
			b.link.Use(bothBack, true, 0)
			if a.link.path.Load().hears(down) || !a.link.path.Load().hears(both) {
				t.Error("what is over is still heard by")
			}
		})
	}
}
