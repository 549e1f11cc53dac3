//go:build virtualtime

// Run by: go test -modfile=$(go run ./lab/virtualtime) -tags virtualtime ./...

package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const (
	oneWay    = 25 * time.Millisecond
	roundTrip = 2 * oneWay
)

// In a bubble the stacks' time is exact: a handshake takes one round trip, and
// what an outage has delayed goes on when it ends.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		outage time.Duration
		replay bool // Resume, and the flight is sent again, as the link does
		first  time.Duration
		all    time.Duration
	}{
		{"none", 0, false, roundTrip, 1 * time.Second},
		{"ten seconds, TCP alone", 10 * time.Second, false, maxRTO, maxRTO + 10*time.Second},
		{"an hour, TCP alone", time.Hour, false, maxRTO, maxRTO + 10*time.Second},
		{"twelve hours, TCP alone", 12 * time.Hour, false, maxRTO, maxRTO + 10*time.Second},
		{"half a second", 500 * time.Millisecond, true, roundTrip, 15 * roundTrip},
		{"ten seconds", 10 * time.Second, true, roundTrip, 15 * roundTrip},
		{"an hour", time.Hour, true, roundTrip, 15 * roundTrip},
		{"twelve hours", 12 * time.Hour, true, roundTrip, 15 * roundTrip},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, all := virtualOutage(t, tt.outage, tt.replay)
				if first > tt.first || all > tt.all {
					t.Errorf("first data after %v, all after %v; want %v and %v at most", first, all, tt.first, tt.all)
				}
			})
		})
	}
}

// virtualOutage gives the times from the outage's end to the first and to the
// last new byte.
func virtualOutage(t *testing.T, outage time.Duration, replay bool) (first, all time.Duration) {
	w := &wire{fused: true, check: true, delay: oneWay, replay: replay}
	connect(t, w)
	defer w.Close()
	l, err := w.b.ListenTCP(netip.AddrPortFrom(addrB4, 80))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	a, err := w.a.DialTCP(t.Context(), netip.AddrPortFrom(addrB4, 80))
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Since(start); got != roundTrip {
		t.Errorf("connected after %v, want one round trip", got)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	idleA, idleB := w.dialed(t, addrB6)

	const size = 4 << 20
	var want bytes.Buffer
	io.Copy(&want, stream(1, size))
	sent := make(chan error)
	go func() { _, err := b.Write(want.Bytes()); sent <- err }()

	// The network fails in the middle of it. What had arrived is read first.
	got := make([]byte, size)
	n, err := io.ReadFull(a, got[:size/8])
	if err != nil {
		t.Fatal(err)
	}
	if outage > 0 {
		w.down.Store(true)
		time.Sleep(outage)
		a.SetReadDeadline(time.Now().Add(1)) // a nanosecond
		m, err := io.ReadFull(a, got[n:])
		if n += m; err == nil {
			t.Fatal("all had arrived before the outage")
		}
		a.SetReadDeadline(time.Time{})
		if replay {
			w.a.Resume()
			w.b.Resume()
		}
		w.restore()
	}
	start = time.Now()
	m, err := a.Read(got[n:])
	if err != nil {
		t.Fatal(err)
	}
	first = time.Since(start)
	if _, err := io.ReadFull(a, got[n+m:]); err != nil {
		t.Fatal(err)
	}
	all = time.Since(start)
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("the bytes differ")
	}
	if err := <-sent; err != nil {
		t.Errorf("write: %v", err)
	}

	// A connection on which nothing happened is as alive.
	go func() { _, err := idleA.Write([]byte("still here")); sent <- err }()
	b10 := make([]byte, 10)
	if _, err := io.ReadFull(idleB, b10); err != nil || string(b10) != "still here" {
		t.Errorf("the idle connection gave %q, %v", b10, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("write: %v", err)
	}
	for _, c := range []io.Closer{a, b, l, idleA, idleB} {
		c.Close()
	}
	return first, all
}

// restore ends an outage, and sends what it swallowed again if so asked.
func (w *wire) restore() {
	w.down.Store(false)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.lost {
		f()
	}
	w.lost = nil
}

// A peer that never comes back ends a connection after about a day, busy or
// idle, dialled or accepted; not earlier.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
	}{{"busy", []byte{1}}, {"idle", nil}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{delay: oneWay}
				connect(t, w)
				defer w.Close()
				a, b := w.dialed(t, addrB4)
				w.down.Store(true)
				start := time.Now()
				ended := make(chan error)
				for _, c := range []net.Conn{a, b} {
					if _, err := c.Write(tt.data); err != nil {
						t.Fatal(err)
					}
					go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
				}
				for range 2 {
					err := <-ended
					if got := time.Since(start); !errors.Is(err, syscall.ETIMEDOUT) || got < 23*time.Hour || got > 26*time.Hour {
						t.Errorf("%v after %v", err, got)
					}
				}
			})
		})
	}
}

// Dialling goes on through an outage, for as long as the context allows.
func TestDialInOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{delay: oneWay}
		connect(t, w)
		defer w.Close()
		l, err := w.b.ListenTCP(netip.AddrPortFrom(addrB6, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		w.down.Store(true)
		time.AfterFunc(time.Hour, w.restore)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		if _, err := w.a.DialTCP(ctx, netip.AddrPortFrom(addrB6, 80)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 30*time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		c, err := w.a.DialTCP(t.Context(), netip.AddrPortFrom(addrB6, 80))
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got < time.Hour || got > time.Hour+2*time.Minute {
			t.Errorf("connected after %v", got)
		}
		c.Close()
	})
}

// A stack at rest sends nothing: no router solicitation, no membership report,
// no duplicate address detection wakes the radio.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{delay: oneWay}
		connect(t, w)
		defer w.Close()
		time.Sleep(24 * time.Hour)
		if n := w.packets.Load(); n != 0 {
			t.Errorf("%d packets in a day", n)
		}
	})
}

// Beside a download that fills a slow path, an interactive stream keeps its
// round trip: it waits for the packets that are on their way out, and for none
// of those that wait.
func TestInteractiveBesideBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 125e6 / 8 // bytes a second
		w := &wire{fused: true, delay: oneWay, rate: rate}
		connect(t, w)
		defer w.Close()
		bulk, sink := w.dialed(t, addrB4)
		a, b := w.dialed(t, addrB6)
		var all sync.WaitGroup
		all.Go(func() { io.Copy(bulk, stream(1, 30<<20)); bulk.Close() })
		all.Go(func() { io.Copy(io.Discard, sink); sink.Close() })
		all.Go(func() { io.Copy(b, b); b.Close() })
		time.Sleep(time.Second)
		worst := time.Duration(0)
		buf := make([]byte, 64)
		for range 20 {
			start := time.Now()
			if _, err := a.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(a, buf); err != nil {
				t.Fatal(err)
			}
			worst = max(worst, time.Since(start))
			time.Sleep(17 * time.Millisecond)
		}
		// What was taken already, and one turn of the other flow.
		if limit := roundTrip + 2*takeBytes*time.Second/rate; worst > limit {
			t.Errorf("a round trip took %v, more than %v", worst, limit)
		}
		a.Close()
		all.Wait()
	})
}

// Coalescing saves acknowledgments, and TCP's window grows as fast without
// them, since what counts is the bytes that each acknowledges.
func TestCoalescingAndWindow(t *testing.T) {
	measure := func(each bool) (took time.Duration, packets int64) {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{fused: true, delay: oneWay, each: each}
			connect(t, w)
			defer w.Close()
			a, b := w.dialed(t, addrB4)
			before, start := w.packets.Load(), time.Now()
			go func() { io.Copy(a, stream(1, 16<<20)); a.Close() }()
			if _, err := io.ReadFull(b, make([]byte, 16<<20)); err != nil {
				t.Fatal(err)
			}
			took, packets = time.Since(start), w.packets.Load()-before
			b.Close()
		})
		return took, packets
	}
	single, singlePackets := measure(true)
	joined, joinedPackets := measure(false)
	t.Logf("one by one: %v, %d packets; coalesced: %v, %d packets", single, singlePackets, joined, joinedPackets)
	// Either takes 14 to 20 round trips, as the goroutines happen to run; a
	// window that grew by acknowledgments would take many times as long.
	if joined > 2*single {
		t.Errorf("coalesced it takes %v instead of %v", joined, single)
	}
	data := int64(16<<20/(testMTU-52) + 1)
	if acks := joinedPackets - data; acks < 16<<20/(2*65000) || acks > data/8 {
		t.Errorf("%d acknowledgments for %d packets of data", acks, data)
	}
}
