package rate

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/rival"
)

// A shared is a link with a queue before it that several senders share. Time
// passes in steps.
type shared struct {
	now    time.Time
	rate   float64 // bytes a second
	delay  time.Duration
	queue  float64 // bytes
	loss   float64
	r      *rand.Rand
	busy   time.Time
	jitter time.Duration // up to this is added; order is kept
	latest time.Time
	users  []user
	waits  time.Duration
	sent   int
}

// A user sends by the link and counts what arrives.
type user interface {
	step(l *shared)
	arrived() int // bytes
}

const tick = 200 * time.Microsecond

func newShared(rate float64, delay time.Duration, products float64) *shared {
	now := time.Unix(1000, 0)
	return &shared{now: now, busy: now, rate: rate, delay: delay, queue: products * rate * delay.Seconds(), r: rand.New(rand.NewPCG(5, 6))}
}

// pass sends a packet, and gives when it arrives; never if it is lost.
func (l *shared) pass() (at time.Time, ok bool) {
	if l.busy.Before(l.now) {
		l.busy = l.now
	}
	wait := l.busy.Sub(l.now)
	if wait.Seconds()*l.rate+packet > l.queue+packet {
		return at, false
	}
	l.busy = l.busy.Add(time.Duration(packet / l.rate * float64(time.Second)))
	l.waits, l.sent = l.waits+wait, l.sent+1
	if l.r.Float64() < l.loss {
		return at, false
	}
	at = l.busy.Add(l.delay/2 + time.Duration(l.r.Float64()*float64(l.jitter)))
	if at.Before(l.latest) {
		at = l.latest
	}
	l.latest = at
	return at, true
}

// run lets d pass, and gives what arrived of each user's in it, bytes a second.
func (l *shared) run(d time.Duration) (rates []float64) {
	before := make([]int, len(l.users))
	for i, u := range l.users {
		before[i] = u.arrived()
	}
	l.waits, l.sent = 0, 0
	for end := l.now.Add(d); l.now.Before(end); l.now = l.now.Add(tick) {
		turn := l.r.IntN(len(l.users))
		for i := range l.users {
			l.users[(i+turn)%len(l.users)].step(l)
		}
	}
	for i, u := range l.users {
		rates = append(rates, float64(u.arrived()-before[i])/d.Seconds())
	}
	return rates
}

// A stranger is a rival.
type stranger struct {
	s     *rival.Sender
	under []arriving
	got   int
}

func (s *stranger) arrived() int { return s.got }

func (s *stranger) step(l *shared) {
	for len(s.under) > 0 && !s.under[0].at.Add(l.delay/2).After(l.now) {
		s.got += packet
		s.s.Acked(l.now, s.under[0].seq)
		s.under = s.under[1:]
	}
	for range s.s.Ready(l.now) {
		seq := s.s.Send(l.now)
		if at, ok := l.pass(); ok {
			s.under = append(s.under, arriving{seq, at})
		}
	}
}

// An own is a link's end with a Control, and the reports of the other end.
type own struct {
	c        *Control
	seq      uint64
	under    []arriving
	gone     []uint64 // that never arrive
	reports  []coming
	got      int
	highest  uint64
	at       time.Time
	reported time.Time
	fresh    bool
	known    uint64
	told     time.Time
	last     time.Time
}

func newOwn(l *shared) *own { return &own{c: New(l.now, l.delay)} }

func (o *own) arrived() int { return o.got }

func (o *own) step(l *shared) {
	for len(o.reports) > 0 && !o.reports[0].at.After(l.now) {
		r := o.reports[0].r
		o.reports = o.reports[1:]
		if r.Highest > o.known {
			o.known, o.told = r.Highest, l.now
		}
		newest, _ := o.c.SentAt(1, r.Highest)
		for len(o.gone) > 0 && o.gone[0] < r.Highest {
			at, _ := o.c.SentAt(1, o.gone[0])
			if newest.Sub(at) < max(o.c.RoundTrip()/4, time.Millisecond) {
				break
			}
			r.Lost += packet
			o.gone = o.gone[1:]
		}
		o.c.Report(l.now, r)
	}
	for (o.c.Reported() || o.c.Flying() < initialBytes) && o.c.Room() > 0 && o.c.Wait(l.now) <= 0 {
		n := max(1, min(o.c.Piece(), 64<<10)/packet)
		for range n {
			o.seq++
			if at, ok := l.pass(); ok {
				o.under = append(o.under, arriving{o.seq, at})
			} else {
				o.gone = append(o.gone, o.seq)
			}
		}
		o.c.Sent(l.now, 1, o.seq-uint64(n)+1, o.seq, n*packet, false)
		o.last = l.now
	}
	if o.c.Flying() > 0 && l.now.Sub(o.last) > l.delay*4 && l.now.Sub(o.told) > l.delay*4 {
		o.c.Lapse()
	}
	for len(o.under) > 0 && !o.under[0].at.After(l.now) {
		o.got += packet
		o.highest, o.at, o.fresh = o.under[0].seq, o.under[0].at, true
		o.under = o.under[1:]
	}
	if o.fresh && l.now.Sub(o.reported) >= Interval(o.c.RoundTrip()) {
		o.reported, o.fresh = l.now, false
		o.reports = append(o.reports, coming{l.now.Add(l.delay / 2), Report{
			SPI: 1, Highest: o.highest, Bytes: uint64(o.got), Arrived: uint32(o.at.UnixMicro()), Ago: l.now.Sub(o.at),
		}})
	}
}

// TestShares lets a Control share a link with CUBIC, BBR, both, and another
// Control, before queues of half, one and two products of rate and round trip.
func TestShares(t *testing.T) {
	kinds := map[rune]func(l *shared) user{
		'C': func(l *shared) user { return &stranger{s: rival.NewCubic()} },
		'B': func(l *shared) user { return &stranger{s: rival.NewBBR()} },
		'G': func(l *shared) user { return newOwn(l) },
	}
	for _, rate := range []float64{20, 60} {
		for _, products := range []float64{0.5, 1, 2} {
			for _, beside := range []string{"C", "B", "CB", "G"} {
				t.Run(fmt.Sprintf("%v Mbit/s, %v, %s", rate, products, beside), func(t *testing.T) {
					t.Parallel()
					l := newShared(rate*mbit, 50*time.Millisecond, products)
					l.users = append(l.users, newOwn(l))
					for _, k := range beside {
						l.users = append(l.users, kinds[k](l))
						l.run(time.Second)
					}
					l.run(9 * time.Second)
					rates := l.run(40 * time.Second)
					sum := 0.0
					for _, r := range rates {
						sum += r
					}
					share := rates[0] * float64(len(rates)) / sum
					t.Logf("%.2f of a fair share, %.0f %% of the link in all", share, 100*sum/l.rate)
					if share < 0.5 || share > 1.5 {
						t.Errorf("%.2f of a fair share: %.0f bytes a second", share, rates)
					}
					if sum < 0.93*l.rate {
						t.Errorf("all together use %.0f %% of the link", 100*sum/l.rate)
					}
				})
			}
		}
	}
}

// TestLossesAreNotYieldedTo has a path that loses packets by itself, before
// queues that the Control fills alone.
func TestLossesAreNotYieldedTo(t *testing.T) {
	for _, rate := range []float64{20, 100} {
		for _, products := range []float64{0.25, 0.5, 1, 2} {
			for _, loss := range []float64{0, 0.01, 0.03, 0.1} {
				t.Run(fmt.Sprintf("%v Mbit/s, %v, %v lost", rate, products, loss), func(t *testing.T) {
					t.Parallel()
					l := newShared(rate*mbit, 50*time.Millisecond, products)
					l.loss = loss
					l.users = append(l.users, newOwn(l))
					l.run(5 * time.Second)
					rates := l.run(20 * time.Second)
					part := rates[0] / l.rate / (1 - loss)
					queue := l.waits / time.Duration(l.sent)
					t.Logf("%.1f %% of what passes, a queue of %v", 100*part, queue)
					if part < 0.9 || queue > 20*time.Millisecond {
						t.Errorf("%.1f %% of what passes, a queue of %v", 100*part, queue)
					}
				})
			}
		}
	}
}
