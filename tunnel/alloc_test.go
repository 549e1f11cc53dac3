//go:build !race

package tunnel

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The race detector makes sync.Pool forget on purpose, hence the build tag.

func TestCoalesceAllocates(t *testing.T) {
	pkts := append(cutUp(t, false, flagACK, 30000), cutUp(t, true, flagACK, 30000)...)
	c := new(coalescer)
	count := 0
	c.input = func(_ tcpip.NetworkProtocolNumber, pb *stack.PacketBuffer) { count++; pb.DecRef() }
	batch := func() {
		for _, b := range pkts {
			c.add(b)
		}
		c.flush()
	}
	if n := testing.AllocsPerRun(100, batch); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if count != 2*101 {
		t.Errorf("%d packets", count)
	}
}

func TestQueueAllocates(t *testing.T) {
	q := NewQueue(1 << 20)
	p := NewPacket(make([]byte, 100))
	ps := make([]Packet, 16)
	if n := testing.AllocsPerRun(100, func() {
		for range 16 {
			q.Put(p)
		}
		if n, err := q.Take(ps); n != 16 || err != nil {
			t.Error(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	q.Close()
	p.Release()
}
