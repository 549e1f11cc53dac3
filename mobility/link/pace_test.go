package link

import (
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// A hole is a carrier from which nothing arrives.
type hole struct{ *wire }

func (hole) Send([]transports.Packet) error { return nil }

// What a move lost is sent again as fast as data left before, not all at once,
// and all of it.
func TestReplayIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		const (
			size = 1000
			rate = 500 << 10 // bytes a second
			many = 200
		)
		// Some traffic shows the rate, and then nothing arrives any more.
		old, back := newWires(transports.UDP, a, b)
		b.link.Use(back, true, 0)
		a.link.Use(old, true, 0)
		n := uint32(0)
		send := func(count int) {
			for range count {
				a.link.Output(packet(n, size))
				n++
				time.Sleep(size * time.Second / rate)
				a.link.life.heard(true, false)
			}
		}
		send(many)
		a.link.Use(hole{old}, true, 0)
		send(many)
		synctest.Wait()

		next, back2 := newWires(transports.UDP, a, b)
		b.link.Use(back2, true, 0)
		start := time.Now()
		a.link.Use(next, true, 0)
		s := b.link.ReceiveState()
		a.link.Replay(regmsg.ReceiveState{SPI: s.SPI, Highest: s.Highest, Missing: s.Missing}, time.Time{})
		synctest.Wait()
		if got := next.sent.Load(); got == 0 || got > replayBurst+replayPiece {
			t.Errorf("%d bytes leave at once, want some, and %d at most", got, replayBurst+replayPiece)
		}
		for len(b.received()) < 2*many {
			time.Sleep(time.Millisecond)
			if time.Since(start) > time.Minute {
				t.Fatalf("%d of %d packets have arrived", len(b.received()), 2*many)
			}
		}
		wantNumbers(t, b, 2*many)
		left := float64(next.sent.Load()-replayBurst) / rate
		if took := time.Since(start).Seconds(); took < 0.7*left || took > 1.3*left {
			t.Errorf("the replay took %.0f ms; at the rate before it is %.0f ms", 1000*took, 1000*left)
		}
	})
}

// What leaves while nothing is heard says nothing of the rate.
func TestMeterIgnoresAHole(t *testing.T) {
	var m meter
	now := int64(1000 * time.Second)
	for range 20 {
		m.sent(now, now, 100<<10)
		now += int64(meterSpan)
	}
	heard, before := now-int64(meterSpan)-1, m.rate()
	for range 20 {
		m.sent(now, heard, 10)
		now += int64(meterSpan)
	}
	if got := m.rate(); got != before || got != float64(100<<10)/meterSpan.Seconds() {
		t.Errorf("rate %.0f, then %.0f", before, got)
	}
}

// A broken carrier refuses everything.
type broken struct{ *wire }

func (broken) Send([]transports.Packet) error { return syscall.ENETUNREACH }

// What no carrier took leaves before what has been queued since, though a
// blind replay ends earlier.
func TestHeldPacketsLeaveFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		old, _ := newWires(transports.UDP, a, b)
		a.link.Use(old, true, 0)
		n := uint32(0)
		send := func(count int) {
			for range count {
				a.link.Output(packet(n, 1000))
				n++
			}
			synctest.Wait()
		}
		const arrived = 3 * blindBytes / 1000
		send(arrived)
		a.link.life.heard(true, false)
		a.link.Use(broken{old}, true, 0)
		send(5)
		send(20)
		time.Sleep(5 * time.Second)
		next, _ := newWires(transports.UDP, a, b)
		a.link.UseProvisionally(next, time.Time{})
		time.Sleep(time.Second)
		synctest.Wait()
		var fresh []uint32
		for _, got := range b.received() {
			if got >= arrived {
				fresh = append(fresh, got)
			}
		}
		if len(fresh) != 25 || !slices.IsSorted(fresh) {
			t.Errorf("of packets %d to %d, these arrived, in this order: %v", arrived, n-1, fresh)
		}
	})
}

// A stream that takes over after a silence gets everything that was sent in it,
// and nothing that was sent long before.
func TestStreamAfterSilenceGetsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		old, _ := newWires(transports.UDP, a, b)
		a.link.Use(old, true, 0)
		const rtt = 50 * time.Millisecond
		a.link.SetRoundTrip(rtt)
		n := uint32(0)
		send := func(count int) {
			for range count {
				a.link.Output(packet(n, 1000))
				n++
				time.Sleep(time.Millisecond)
			}
		}
		const arrived = 300
		send(arrived)
		a.link.life.heard(true, false)
		a.link.Use(hole{old}, true, 0)
		send(500)
		began := time.Now()
		time.Sleep(rtt)
		before := len(b.received())
		next, _ := newWires(transports.TCP, a, b)
		a.link.UseProvisionally(next, began)
		time.Sleep(time.Second)
		got := b.received()[before:]
		// What left in the two round trips before the silence may be lost, too.
		if len(got) < 500+50 || len(got) > 500+110 || got[len(got)-1] != n-1 || !slices.IsSorted(got) {
			t.Errorf("%d packets from %d to %d are sent again, want from about %d to %d", len(got), got[0], got[len(got)-1], arrived-100, n-1)
		}
	})
}

// A rate that was seen long ago does not fill the queue before the narrowest link.
func TestReplayRate(t *testing.T) {
	for _, tt := range []struct{ left, seen, want float64 }{
		{1e6, 0, 1e6}, {1e6, 0.5e6, 1e6}, {1e6, 1.2e6, 1.2e6}, {1e6, 8e6, 1.5e6},
	} {
		if got := replayRate(tt.left, tt.seen); got != tt.want {
			t.Errorf("data left at %.0f, %.0f was seen: %.0f, want %.0f", tt.left, tt.seen, got, tt.want)
		}
	}
}

// The flight has what left in the time that it takes to know of a loss, and
// everything while the peer is not heard, up to its bound.
func TestFlightFollowsTheRate(t *testing.T) {
	l := New(Config{Table: new(Table), FlightBytes: 8 << 20})
	defer l.Close()
	l.life.rtt.Store(int64(200 * time.Millisecond))
	out, err := esp.NewOutbound(1, esp.AES128GCM, make([]byte, esp.AES128GCM.KeyLen()), false)
	if err != nil {
		t.Fatal(err)
	}
	now, n := clock.Now(), uint32(0)
	send := func(bytes int, heard bool) {
		for range bytes / 1000 {
			now += int64(500 * time.Microsecond) // 2 MB/s
			if heard {
				l.life.in.Store(now)
			}
			l.flight.add(sent{packet: packet(n, 1000), size: 1000, out: out, first: uint64(n), n: 1, at: now})
			n++
		}
	}
	// Two round trips, three of silence, and what an answer may be late: 1.2 s.
	send(20e6, true)
	if got := l.flight.kept(); got < 2.39e6 || got > 2.41e6 {
		t.Errorf("%d bytes are kept, want 2,400,000", got)
	}
	send(4e6, false)
	if got := l.flight.kept(); got < 6.3e6 {
		t.Errorf("after an outage %d bytes are kept, want 6,400,000", got)
	}
	send(4e6, false)
	if got := l.flight.kept(); got > 8<<20 || got < 8<<20-2000 {
		t.Errorf("then %d bytes are kept, want %d", got, 8<<20)
	}
}

// A replay that is cut short by the next one leaves nothing out of order.
func TestReplayAfterReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPair(t)
		defer a.link.Close()
		defer b.link.Close()
		old, _ := newWires(transports.UDP, a, b)
		a.link.Use(hole{old}, true, 0)
		began := time.Now()
		const many = 300
		for i := range uint32(many) {
			a.link.Output(packet(i, 1000))
			time.Sleep(time.Millisecond)
		}
		// The first stream that takes over takes nothing, and is reset.
		dead, _ := newWires(transports.TCP, a, b)
		dead.stuck = make(chan struct{})
		a.link.UseProvisionally(dead, began)
		synctest.Wait()
		dead.Close()
		time.Sleep(time.Millisecond)
		next, _ := newWires(transports.WebSocket, a, b)
		a.link.UseProvisionally(next, began)
		time.Sleep(time.Second)
		if got := b.received(); len(got) != many || !slices.IsSorted(got) {
			t.Errorf("%d packets have arrived, want %d in order; the first are %v", len(got), many, got[:min(len(got), 20)])
		}
	})
}
