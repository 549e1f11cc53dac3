package tunnel

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testMTU = 1360

var (
	addrA4, addrB4 = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")
	addrA6, addrB6 = netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd09::2")
)

// A wire joins two stacks.
type wire struct {
	cut     bool          // to testMTU
	fused   bool          // by AppendCut
	check   bool          // each packet, by checkPacket
	delay   time.Duration // each way
	loss    float64       // share of the packets that get lost
	rate    int           // bytes a second, each way; 0 is unlimited
	forward *Forward      // of b
	mtuB    int           // of b; 0 is testMTU
	each    bool          // packets go in one by one, which nothing coalesces

	down   atomic.Bool // loses everything
	replay bool        // restore sends again what an outage swallowed

	mu   sync.Mutex
	lost []func() // with replay: each delivers packets that were lost

	packets atomic.Int64
	largest atomic.Int64

	a, b *Stack
	wait sync.WaitGroup
	shut []func()
}

// connect makes the two stacks; Close ends them.
func connect(t testing.TB, w *wire) {
	t.Helper()
	var qa, qb = NewQueue(16 << 20), NewQueue(16 << 20)
	w.a = newStack(t, qa, addrA4, addrA6)
	w.b = newStackOf(t, qb, Config{Addresses: []netip.Addr{addrB4, addrB6}, Forward: w.forward, MTU: w.mtuB})
	w.wait.Go(func() { w.pump(t, qa, w.b, 1) })
	w.wait.Go(func() { w.pump(t, qb, w.a, 2) })
	w.shut = []func(){w.a.Close, w.b.Close, qa.Close, qb.Close}
}

func (w *wire) Close() {
	for _, f := range w.shut {
		f()
	}
	w.wait.Wait()
}

func newStack(t testing.TB, q *Queue, addrs ...netip.Addr) *Stack {
	t.Helper()
	return newStackOf(t, q, Config{Addresses: addrs})
}

func newStackOf(t testing.TB, q *Queue, c Config) *Stack {
	t.Helper()
	if c.MTU == 0 {
		c.MTU = testMTU
	}
	c.Output = func(p Packet) {
		if !q.Put(p) {
			p.Release()
		}
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *wire) pump(t testing.TB, from *Queue, to *Stack, seed uint64) {
	random := rand.New(rand.NewPCG(seed, seed))
	input := to.Input
	if w.each {
		input = func(pkts [][]byte) {
			for i := range pkts {
				to.Input(pkts[i : i+1])
			}
		}
	}
	if w.delay > 0 {
		l := newDelayLine(w.delay, input)
		defer l.close()
		input = l.put
	}
	ps := make([]Packet, 64)
	var whole, buf []byte
	var segs [][]byte
	for {
		n, err := from.Take(ps)
		if err != nil {
			return
		}
		for _, p := range ps[:n] {
			buf, segs = buf[:0], segs[:0]
			switch {
			case w.fused:
				buf, segs, err = p.AppendCut(buf, testMTU, segs)
			case w.cut:
				whole = p.AppendTo(whole[:0])
				buf, segs, err = Cut(whole, testMTU, buf, segs)
			default:
				buf = p.AppendTo(buf)
				segs = append(segs, buf)
			}
			if w.rate > 0 {
				time.Sleep(time.Duration(p.Len()) * time.Second / time.Duration(w.rate))
			}
			p.Release()
			if err != nil {
				t.Errorf("cut: %v", err)
			}
			w.deliver(t, segs, input, random)
		}
	}
}

func (w *wire) deliver(t testing.TB, pkts [][]byte, input func([][]byte), random *rand.Rand) {
	kept := pkts[:0]
	for _, b := range pkts {
		w.packets.Add(1)
		w.largest.Store(max(w.largest.Load(), int64(len(b))))
		if w.check {
			if err := checkPacket(b); err != nil {
				t.Errorf("%v: % x", err, b[:min(len(b), 60)])
			}
		}
		if w.down.Load() && w.replay {
			b := append([]byte(nil), b...)
			w.mu.Lock()
			w.lost = append(w.lost, func() { input([][]byte{b}) })
			w.mu.Unlock()
			continue
		}
		if w.down.Load() || w.loss > 0 && random.Float64() < w.loss {
			continue
		}
		kept = append(kept, b)
	}
	if len(kept) > 0 {
		input(kept)
	}
}

// A delayLine hands packets on after a time and keeps their order, which
// timers that run out together would not.
type delayLine struct {
	delay time.Duration
	in    chan delayed
	done  chan struct{}
}

type delayed struct {
	due  time.Time
	pkts [][]byte
}

func newDelayLine(delay time.Duration, out func([][]byte)) *delayLine {
	l := &delayLine{delay: delay, in: make(chan delayed, 1<<16), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for d := range l.in {
			time.Sleep(time.Until(d.due))
			out(d.pkts)
		}
	}()
	return l
}

func (l *delayLine) put(pkts [][]byte) {
	d := delayed{due: time.Now().Add(l.delay)}
	for _, b := range pkts {
		d.pkts = append(d.pkts, append([]byte(nil), b...))
	}
	l.in <- d
}

func (l *delayLine) close() {
	close(l.in)
	<-l.done
}

// checkPacket verifies lengths and checksums of a whole IP packet as the RFCs
// define them, byte by byte, without gVisor's help.
func checkPacket(b []byte) error {
	if len(b) < 20 {
		return fmt.Errorf("%d bytes", len(b))
	}
	var payload, pseudo []byte
	var proto byte
	switch b[0] >> 4 {
	case 4:
		n := int(b[0]&15) * 4
		if total := int(binary.BigEndian.Uint16(b[2:])); total != len(b) || n < 20 || n > total {
			return fmt.Errorf("IPv4 total length %d, header %d, packet %d", total, n, len(b))
		}
		if sum := onesSum(b[:n]); sum != 0xffff {
			return fmt.Errorf("IPv4 header sums up to %#x", sum)
		}
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return nil // a fragment: the checksum covers what it belongs to
		}
		proto, payload = b[9], b[n:]
		pseudo = append(pseudo, b[12:20]...)
	case 6:
		if n := int(binary.BigEndian.Uint16(b[4:])); 40+n != len(b) {
			return fmt.Errorf("IPv6 payload length %d, packet %d", n, len(b))
		}
		if b[6] == 44 {
			return nil // a fragment
		}
		proto, payload = b[6], b[40:]
		pseudo = append(pseudo, b[8:40]...)
	default:
		return fmt.Errorf("version %d", b[0]>>4)
	}
	if proto == 1 {
		pseudo = nil
	} else {
		pseudo = append(pseudo, 0, proto, byte(len(payload)>>8), byte(len(payload)))
	}
	if sum := onesSum(append(pseudo, payload...)); sum != 0xffff {
		return fmt.Errorf("protocol %d sums up to %#x", proto, sum)
	}
	return nil
}

// onesSum is the one's complement sum of RFC 1071, four bytes at a time: its
// Section 2(C) allows that.
func onesSum(b []byte) uint32 {
	var sum uint64
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(binary.BigEndian.Uint32(b))
	}
	var rest [4]byte
	copy(rest[:], b)
	sum += uint64(binary.BigEndian.Uint32(rest[:]))
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint32(sum)
}

// dialed gives both ends of a TCP connection from a to b.
func (w *wire) dialed(t testing.TB, at netip.Addr) (a, b net.Conn) {
	t.Helper()
	l, err := w.b.ListenTCP(netip.AddrPortFrom(at, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = w.a.DialTCP(context.Background(), netip.AddrPortFrom(at, 80))
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// stream is a reader of n bytes that a seed determines.
func stream(seed byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}
