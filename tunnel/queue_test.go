package tunnel

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// flowPacket makes a packet of size bytes of the flow with this port.
func flowPacket(port uint16, serial uint32, size int) Packet {
	b := make([]byte, size)
	b[0], b[ipv4Protocol] = 0x45, protocolTCP
	binary.BigEndian.PutUint16(b[20:], port)
	binary.BigEndian.PutUint32(b[24:], serial)
	return NewPacket(b)
}

// label reads what flowPacket wrote, and releases the packet.
func label(p Packet) (port uint16, serial uint32) {
	b := p.AppendTo(nil)
	p.Release()
	return binary.BigEndian.Uint16(b[20:]), binary.BigEndian.Uint32(b[24:])
}

// apart gives ports of n flows that share no bucket.
func apart(n int) (ports []uint16) {
	seen := make(map[int]bool)
	for port := uint16(1); len(ports) < n; port++ {
		p := flowPacket(port, 0, 40)
		if b := p.bucket(); !seen[b] {
			seen[b] = true
			ports = append(ports, port)
		}
		p.Release()
	}
	return ports
}

func fill(t *testing.T, q *Queue, port uint16, n, size int) {
	t.Helper()
	for i := range n {
		if !q.Put(flowPacket(port, uint32(i), size)) {
			t.Fatal("refused")
		}
	}
}

// A packet of a flow with nothing waiting is in the very next Take, whatever
// else waits; and what Take gives is bounded.
func TestQueueNewFlowFirst(t *testing.T) {
	q := NewQueue(8 << 20)
	defer q.Close()
	port := apart(3)
	fill(t, q, port[0], 40, 60000)
	fill(t, q, port[1], 1000, 1400)
	ps := make([]Packet, 32)
	for i := range uint32(20) {
		q.Put(flowPacket(port[2], i, 100))
		n, err := q.Take(ps)
		bytes, found := 0, false
		for _, p := range ps[:n] {
			bytes += p.Len()
			got, serial := label(p)
			found = found || got == port[2] && serial == i
		}
		if err != nil || bytes > takeBytes || !found {
			t.Fatalf("keystroke %d: %d packets of %d bytes, found %v, %v", i, n, bytes, found, err)
		}
	}
}

// Flows get equal bytes, whatever the size of their packets.
func TestQueueShares(t *testing.T) {
	q := NewQueue(32 << 20)
	defer q.Close()
	port := apart(3)
	size := map[uint16]int{port[0]: 60000, port[1]: 1400, port[2]: 9000}
	for p, s := range size {
		fill(t, q, p, 6<<20/s, s)
	}
	got := make(map[uint16]int)
	ps := make([]Packet, 32)
	for total := 0; total < 9<<20; {
		n, _ := q.Take(ps)
		for _, p := range ps[:n] {
			total += p.Len()
			port, _ := label(p)
			got[port] += size[port]
		}
	}
	for p, n := range got {
		if n < 3<<20-2*60000 || n > 3<<20+2*60000 {
			t.Errorf("the flow with packets of %d bytes got %d of %d bytes", size[p], n, 9<<20)
		}
	}
}

// A full queue takes from the longest flow, and only from its end.
func TestQueueOverflow(t *testing.T) {
	q := NewQueue(100_000)
	defer q.Close()
	port := apart(3)
	fill(t, q, port[0], 60, 1000)
	fill(t, q, port[1], 40, 1000)
	for i, tt := range []struct {
		port uint16
		size int
		want bool
	}{
		{port[0], 1000, false}, // the longest itself
		{port[2], 2000, true},
		{port[1], 1000, true},
		{port[1], 30_000, false}, // would be the longest
	} {
		p := flowPacket(tt.port, 100, tt.size)
		if got := q.Put(p); got != tt.want {
			t.Errorf("packet %d: taken %v", i, got)
		}
		if !tt.want {
			p.Release()
		}
	}
	if q.Dropped() != 5 || q.Bytes() != 100_000 {
		t.Errorf("%d dropped, %d bytes wait", q.Dropped(), q.Bytes())
	}
	var serials []uint32
	ps := make([]Packet, 8)
	for q.Bytes() > 0 {
		n, _ := q.Take(ps)
		for _, p := range ps[:n] {
			if got, serial := label(p); got == port[0] {
				serials = append(serials, serial)
			}
		}
	}
	if len(serials) != 57 || serials[56] != 56 || !slices.IsSorted(serials) {
		t.Errorf("of the longest flow came %d", serials)
	}
}

// Nothing is lost or overtaken within a flow, and an empty queue holds nothing.
func TestQueueOrder(t *testing.T) {
	if size := unsafe.Sizeof(Queue{}); size > 2048 {
		t.Errorf("a Queue takes %d bytes", size)
	}
	random := rand.New(rand.NewPCG(1, 2))
	q := NewQueue(1 << 30)
	defer q.Close()
	var sent, got [2000]uint32
	ps := make([]Packet, 64)
	for range 300 {
		for range random.IntN(400) {
			port := random.IntN(1 + random.IntN(len(sent)))
			if !q.Put(flowPacket(uint16(port), sent[port], 40+random.IntN(6000))) {
				t.Fatal("refused")
			}
			sent[port]++
		}
		for limit := random.IntN(120); limit > 0 && q.Bytes() > 0; limit-- {
			n, err := q.Take(ps[:1+random.IntN(len(ps))])
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			for _, p := range ps[:n] {
				port, serial := label(p)
				if serial != got[port] {
					t.Fatalf("flow %d: packet %d came instead of %d", port, serial, got[port])
				}
				got[port]++
			}
		}
		if q.Bytes() == 0 && q.flows != (flows{}) {
			t.Fatal("the empty queue holds on to memory")
		}
	}
	for q.Bytes() > 0 {
		n, _ := q.Take(ps)
		for _, p := range ps[:n] {
			port, _ := label(p)
			got[port]++
		}
	}
	if got != sent || q.Dropped() != 0 {
		t.Error("packets got lost")
	}
}

// What has hardly anything waiting can be taken past what has much.
func TestQueueTakeSmall(t *testing.T) {
	q := NewQueue(1 << 20)
	defer q.Close()
	ports := apart(3)
	fill(t, q, ports[0], 20, 1400)
	fill(t, q, ports[1], 2, 100)
	ps := make([]Packet, 8)
	// The flow is known by now, and old.
	if n, err := q.Take(ps[:4]); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	for _, p := range ps[:4] {
		p.Release()
	}
	fill(t, q, ports[1], 1, 100)
	fill(t, q, ports[2], 1, 100)
	before := q.Bytes()
	n := q.TakeSmall(ps, nil)
	got := map[uint16]int{}
	for _, p := range ps[:n] {
		port, _ := label(p)
		got[port]++
	}
	if got[ports[0]] != 0 || got[ports[1]] == 0 || got[ports[2]] != 1 {
		t.Errorf("taken: %v of %v", got, ports)
	}
	if q.Bytes() != before-100*n {
		t.Errorf("%d bytes wait, of %d before %d of 100 were taken", q.Bytes(), before, n)
	}
	if n := q.TakeSmall(ps, nil); n != 0 {
		t.Errorf("%d more", n)
	}
	// What follows something that has not left yet stays behind it.
	fill(t, q, ports[1], 1, 100)
	if n := q.TakeSmall(ps[n:], ps[:n]); n != 0 {
		t.Errorf("%d overtake their own flow", n)
	}
}
