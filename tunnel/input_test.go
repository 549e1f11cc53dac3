package tunnel

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Whatever a peer sends into the stack: no panic, and the stack still works
// for others and still closes. The input is a train of packets, each with its
// length before it in two bytes.
func FuzzInput(f *testing.F) {
	train := func(pkts ...[]byte) []byte {
		var b []byte
		for _, p := range pkts {
			b = append(append(b, byte(len(p)>>8), byte(len(p))), p...)
		}
		return b
	}
	for _, v6 := range []bool{false, true} {
		syn := segment(v6, nil, []byte{2, 4, 5, 0, 1, 3, 3, 7}, flagSYN, 0, nil)
		f.Add(train(syn, segment(v6, nil, timestamps, flagACK|flagPSH, 0, make([]byte, 9000)), segment(v6, nil, nil, flagRST, 0, nil)))
		f.Add(train(segment(v6, nil, nil, flagACK|flagFIN|flagURG, 77, []byte("stray"))))
	}
	f.Add(train(echoRequest(addrA6, addrB6)))
	f.Add(train(echoRequest(addrB6, addrB6)))                                                    // from itself
	f.Add(train(segment(false, []byte{7, 4, 5, 6}, nil, flagSYN, 0, nil)))                       // a full record route
	f.Add(train([]byte{0x45, 0, 0, 28, 0, 1, 0x20, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2}))  // a fragment
	f.Add(train(append([]byte{0x60, 0, 0, 0, 0, 8, 44, 64}, make([]byte, 40)...), []byte{0x60})) // an IPv6 fragment
	f.Add(train([]byte{0}, nil, []byte{0x45}))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &wire{}
		connect(t, w)
		defer w.Close()
		l, err := w.b.ListenTCP(netip.AddrPortFrom(addrB4, 12345))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l6, err := w.b.ListenTCP(netip.AddrPortFrom(addrB6, 12345))
		if err != nil {
			t.Fatal(err)
		}
		defer l6.Close()
		for len(b) >= 2 {
			n := min(int(b[0])<<8|int(b[1]), len(b)-2)
			closeWindow(w.b, b[2:2+n])
			w.b.Input([][]byte{b[2 : 2+n]})
			b = b[2+n:]
		}
		dialled, accepted := w.dialed(t, addrB4)
		defer dialled.Close()
		defer accepted.Close()
		if _, err := dialled.Write([]byte("after")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if n, err := accepted.Read(got); err != nil || !bytes.Equal(got[:n], []byte("after")) {
			t.Fatalf("got %q, %v", got[:n], err)
		}
	})
}

// closeWindow makes a stack believe that the flow of a packet has no window.
func closeWindow(s *Stack, b []byte) {
	var seg tcpSegment
	if len(b) == 0 || seg.parse(b) != plain {
		return
	}
	w := &s.link.windows
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.low == nil {
		w.low = make(map[flow]window)
	}
	w.low[seg.flow] = window{next: seg.seq - 1, closed: true}
	w.watched.Store(int32(len(w.low)))
}

// A peer cannot make the stack send errors without end.
func TestErrorsAreLimited(t *testing.T) {
	q := NewQueue(16 << 20)
	defer q.Close()
	s := newStack(t, q, addrB4)
	defer s.Close()
	// UDP, without a checksum, to a port on which nobody listens.
	stray := []byte{0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, 0, 53, 0, 53, 0, 8, 0, 0}
	completeIPv4(stray[:20])
	flood := make([][]byte, 20000)
	for i := range flood {
		flood[i] = stray
	}
	s.Input(flood)
	// The burst, and what the limit allows in the time that the flood takes.
	if n := q.Bytes() / 56; n < icmpBurst || n > len(flood)/10 {
		t.Errorf("%d errors for %d packets", n, len(flood))
	}
}

func TestStats(t *testing.T) {
	w := &wire{}
	connect(t, w)
	defer w.Close()
	good := segment(true, nil, nil, flagACK, 0, []byte("stray"))
	badSum := bytes.Clone(good)
	badSum[len(badSum)-1]++
	elsewhere := segment(true, nil, nil, flagACK, 0, nil)
	elsewhere[39]++
	for _, tt := range []struct {
		name string
		pkts [][]byte
		want Stats
	}{
		{"nothing", nil, Stats{}},
		{"for a port without a listener", [][]byte{good}, Stats{}},
		{"no IP", [][]byte{nil, {0x55}, make([]byte, maxPacket+1)}, Stats{Malformed: 3}},
		{"cut off", [][]byte{{0x45}, good[:50]}, Stats{Malformed: 2}},
		{"a wrong checksum, which nobody looks at", [][]byte{badSum}, Stats{}},
		{"for another address", [][]byte{elsewhere}, Stats{Misdirected: 1}},
	} {
		before := w.b.Stats()
		w.b.Input(tt.pkts)
		got := w.b.Stats()
		got.Malformed -= before.Malformed
		got.Misdirected -= before.Misdirected
		if got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	a, b := w.dialed(t, addrB6)
	if got := w.b.Stats().Connections; got != 1 {
		t.Errorf("%d connections", got)
	}
	a.Close()
	b.Close()
}

func benchmarkStream(b *testing.B, w *wire) {
	connect(b, w)
	defer w.Close()
	from, to := w.dialed(b, addrB4)
	const chunk = 1 << 20
	b.SetBytes(chunk)
	b.ReportAllocs()
	var all sync.WaitGroup
	all.Go(func() {
		defer from.Close()
		data := make([]byte, chunk)
		for range b.N {
			if _, err := from.Write(data); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ResetTimer()
	buf := make([]byte, 256<<10)
	for left := b.N * chunk; left > 0; {
		n, err := to.Read(buf)
		if err != nil {
			b.Error(err)
			break
		}
		left -= n
	}
	b.StopTimer()
	all.Wait()
	to.Close()
}

func BenchmarkStream(b *testing.B) {
	b.Run("whole", func(b *testing.B) { benchmarkStream(b, &wire{}) })
	b.Run("cut", func(b *testing.B) { benchmarkStream(b, &wire{cut: true}) })
	b.Run("cut at once", func(b *testing.B) { benchmarkStream(b, &wire{fused: true}) })
}

func BenchmarkCut(b *testing.B) {
	pkt := segment(false, nil, timestamps, flagACK, 0, make([]byte, 64000))
	buf, segs := make([]byte, 0, 1<<17), make([][]byte, 0, 64)
	b.SetBytes(int64(len(pkt)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Cut(pkt, testMTU, buf, segs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkQueue(b *testing.B) {
	q := NewQueue(1 << 20)
	defer q.Close()
	p := NewPacket(make([]byte, 1000))
	defer p.Release()
	ps := make([]Packet, 64)
	b.ReportAllocs()
	for b.Loop() {
		for range ps {
			q.Put(p)
		}
		if _, err := q.Take(ps); err != nil {
			b.Fatal(err)
		}
	}
}

// A dialled connection is what the fronts expect of one.
var _ interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
} = (*conn)(nil)
