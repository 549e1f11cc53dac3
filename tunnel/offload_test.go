package tunnel

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// finish does what a network card would do with a packet that was left to it,
// and gives the pieces.
func (o Offload) finish(t *testing.T, b []byte) [][]byte {
	t.Helper()
	b = bytes.Clone(b)
	if o.ChecksumStart > 0 {
		part := b[o.ChecksumStart:]
		checksum.Put(part[o.ChecksumOffset:], ^checksum.Checksum(part, 0))
	}
	if o.Segment == 0 {
		return [][]byte{b}
	}
	if payload := len(b) - o.Header; payload <= o.Segment {
		t.Errorf("%d bytes are to be cut to %d", payload, o.Segment)
	}
	if n := o.Header + o.Segment; n > testMTU {
		t.Errorf("pieces of %d bytes, the MTU is %d", n, testMTU)
	}
	if v6 := b[0]>>4 == 6; o.V6 != v6 {
		t.Errorf("IPv6: %v, want %v", o.V6, v6)
	}
	_, segs, err := Cut(b, o.Header+o.Segment, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return segs
}

// What is left to a network card comes to the same packets as what is not.
func TestAppendPartial(t *testing.T) {
	var mu sync.Mutex
	cut := map[bool]int{} // large segments seen, by IP version
	q := NewQueue(16 << 20)
	a, err := New(Config{Addresses: []netip.Addr{addrA4, addrA6}, MTU: testMTU, Output: func(p Packet) {
		whole := p.AppendTo(nil)
		b, o := p.AppendPartial([]byte("before"))
		if !bytes.HasPrefix(b, []byte("before")) {
			t.Error("what stood before is lost")
		}
		want := [][]byte{whole}
		if o.Segment > 0 {
			mu.Lock()
			cut[o.V6]++
			mu.Unlock()
			var err error
			if _, want, err = Cut(whole, o.Header+o.Segment, nil, nil); err != nil {
				t.Error(err)
			}
		}
		got := o.finish(t, b[len("before"):])
		if len(got) != len(want) {
			t.Errorf("%d pieces, want %d", len(got), len(want))
		}
		for i := range min(len(got), len(want)) {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("piece %d of %d is %x, want %x", i, len(want), got[i][:min(80, len(got[i]))], want[i][:min(80, len(want[i]))])
				break
			}
		}
		if !q.Put(p) {
			p.Release()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{a: a}
	qb := NewQueue(16 << 20)
	w.b = newStack(t, qb, addrB4, addrB6)
	w.wait.Go(func() { w.pump(t, q, w.b, 1) })
	w.wait.Go(func() { w.pump(t, qb, w.a, 2) })
	w.shut = []func(){w.a.Close, w.b.Close, q.Close, qb.Close}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, to := range []netip.Addr{addrB4, addrB6} {
		ln, err := w.b.ListenTCP(netip.AddrPortFrom(to, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := w.a.DialTCP(ctx, netip.AddrPortFrom(to, 80))
		if err != nil {
			t.Fatal(err)
		}
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		const size = 3 << 20
		go func() {
			_, _ = c.Write(bytes.Repeat([]byte("offload "), size/8))
			c.Close()
		}()
		if n, err := io.Copy(io.Discard, far); n != size || err != nil {
			t.Errorf("%d bytes came, %v", n, err)
		}
		far.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if cut[false] == 0 || cut[true] == 0 {
		t.Errorf("large segments of IPv4 and IPv6: %v; the test proves nothing", cut)
	}
}
