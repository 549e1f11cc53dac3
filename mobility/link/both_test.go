package link

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
)

func TestAlsoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		one, _ := newWires(transports.UDP, a, b)
		two, _ := newWires(transports.UDP, a, b)
		stream, _ := newWires(transports.TCP, a, b)
		a.link.Use(one, true, 0)
		a.link.AlsoUse(one, stream, time.Second)
		a.link.AlsoUse(stream, two, time.Second) // not in use
		n := uint32(0)
		send := func(byOne, byTwo int64) {
			t.Helper()
			was, also := one.packets.Load(), two.packets.Load()
			n++
			a.link.Output(packet(n, 200))
			synctest.Wait()
			if g, h := one.packets.Load()-was, two.packets.Load()-also; g != byOne || h != byTwo {
				t.Errorf("packet %d: %d times by the one, %d by the other", n, g, h)
			}
		}
		send(1, 0)
		a.link.AlsoUse(one, two, time.Second)
		send(1, 1)
		time.Sleep(time.Second)
		send(1, 0)
		a.link.AlsoUse(one, two, time.Second)
		send(1, 1)
		// What the one loses comes by the other.
		nobody := newEnd()
		defer nobody.link.Close()
		hole, _ := newWires(transports.UDP, a, nobody)
		a.link.Use(hole, true, 0)
		a.link.AlsoUse(hole, two, time.Second)
		send(0, 1)
		a.link.Use(two, true, 0)
		send(0, 1)
		if got := b.received(); !slices.Equal(got, []uint32{1, 2, 3, 4, 5, 6}) {
			t.Errorf("received %v", got)
		}
		if stream.packets.Load() != 0 {
			t.Error("a stream was used too")
		}
	})
}
