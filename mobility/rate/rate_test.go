package rate

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// A path takes packets at a rate, after a queue, and reports them.
type path struct {
	now     time.Time
	c       *Control
	rate    float64 // bytes a second
	delay   time.Duration
	queue   int // bytes that fit
	loss    float64
	backlog func() int // bytes that wait to be sent; nil: always enough
	// Whether the sender, and the receiver, have no processor at a time; nil:
	// never.
	sendStalls, receiveStalls func(time.Time) bool

	r         *rand.Rand
	seq       uint64
	busy      time.Time
	under     []arriving
	reports   []coming
	received  uint64
	highest   uint64
	at        time.Time
	reported  time.Time
	last      time.Time     // that something left
	known     uint64        // highest reported
	told      time.Time     // when it rose
	delays    time.Duration // sum of the waits in the queue
	arrivals  int
	delivered int
}

type arriving struct {
	seq uint64
	at  time.Time
}

type coming struct {
	at time.Time
	r  Report
}

const packet = 1400

func newPath(rate float64, delay, buffer time.Duration) *path {
	now := time.Unix(1000, 0)
	return &path{now: now, c: New(now, delay), rate: rate, delay: delay, queue: int(rate * buffer.Seconds()), r: rand.New(rand.NewPCG(1, 2))}
}

// run lets d pass, in steps that are finer than what matters.
func (p *path) run(d time.Duration) (goodput float64, queue time.Duration) {
	begin := p.delivered
	p.delays, p.arrivals = 0, 0
	const step = 100 * time.Microsecond
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(step) {
		for len(p.reports) > 0 && !p.reports[0].at.After(p.now) && !stalls(p.sendStalls, p.now) {
			if r := p.reports[0].r; r.Highest > p.known {
				p.known, p.told = r.Highest, p.now
			}
			p.c.Report(p.now, p.reports[0].r)
			p.reports = p.reports[1:]
		}
		for (p.c.Reported() || p.c.Flying() < initialBytes) && p.c.Room() > 0 && p.c.Wait(p.now) <= 0 && !stalls(p.sendStalls, p.now) && (p.backlog == nil || p.backlog() >= packet) {
			n := max(1, min(p.c.Piece(), 64<<10)/packet)
			for range n {
				p.seq++
				p.send(p.seq)
			}
			p.c.Sent(p.now, 1, p.seq-uint64(n)+1, p.seq, n*packet, false)
			p.last = p.now
		}
		if late := max(p.delay, 2*minInterval) * 2; p.c.Flying() > 0 && p.now.Sub(p.last) > late && p.now.Sub(p.told) > late {
			p.c.Lapse() // the last ones are lost
		}
		asleep := stalls(p.receiveStalls, p.now)
		for len(p.under) > 0 && !p.under[0].at.After(p.now) && !asleep {
			p.received += packet
			p.delivered += packet
			p.highest, p.at = p.under[0].seq, p.now
			p.under = p.under[1:]
		}
		if p.highest > 0 && !asleep && p.now.Sub(p.reported) >= max(p.delay/4, minInterval) {
			p.reported = p.now
			p.reports = append(p.reports, coming{p.now.Add(p.delay / 2), Report{
				SPI: 1, Highest: p.highest, Bytes: p.received, Arrived: uint32(p.at.UnixMicro()), Ago: p.now.Sub(p.at),
			}})
		}
	}
	return float64(p.delivered-begin) / d.Seconds(), p.delays / time.Duration(max(p.arrivals, 1))
}

func (p *path) send(seq uint64) {
	start := p.now
	if p.busy.After(start) {
		start = p.busy
	}
	if start.Sub(p.now).Seconds()*p.rate > float64(p.queue) {
		return
	}
	p.busy = start.Add(time.Duration(packet / p.rate * float64(time.Second)))
	p.delays += start.Sub(p.now)
	p.arrivals++
	if p.r.Float64() < p.loss {
		return
	}
	p.under = append(p.under, arriving{seq, p.busy.Add(p.delay / 2)})
}

const mbit = 1e6 / 8

func TestFindsTheRate(t *testing.T) {
	for _, tt := range []struct {
		rate  float64
		delay time.Duration
		loss  float64
	}{
		{1 * mbit, 50 * time.Millisecond, 0},
		{100 * mbit, 50 * time.Millisecond, 0},
		{100 * mbit, 50 * time.Millisecond, 0.03},
		{100 * mbit, 50 * time.Millisecond, 0.10},
		{20 * mbit, 300 * time.Millisecond, 0.02},
		{500 * mbit, 10 * time.Millisecond, 0},
	} {
		p := newPath(tt.rate, tt.delay, 50*time.Millisecond)
		p.loss = tt.loss
		p.run(40 * tt.delay)
		got, queue := p.run(20 * time.Second)
		t.Logf("%v Mbit/s, %v, %v: %.1f %% of what passes, queue %v", tt.rate/mbit, tt.delay, tt.loss, 100*got/(tt.rate*(1-tt.loss)), queue)
		if got < (0.95-tt.loss)*tt.rate*(1-tt.loss) {
			t.Errorf("%v Mbit/s at %v with %v lost: %.1f", tt.rate/mbit, tt.delay, tt.loss, got/mbit)
		}
		if limit := max(25*time.Millisecond, 4*time.Duration(packet/tt.rate*float64(time.Second))); queue > limit {
			t.Errorf("%v Mbit/s at %v with %v lost: a queue of %v on average", tt.rate/mbit, tt.delay, tt.loss, queue)
		}
	}
}

// On a busy machine either end gets its turn late, or not at all for a while.
// That is not the path's doing, and must not pass for its rate.
func TestStalls(t *testing.T) {
	const delay = 50 * time.Millisecond
	every := func(period, asleep time.Duration) func(time.Time) bool {
		return func(now time.Time) bool { return time.Duration(now.UnixNano())%period < asleep }
	}
	// Stalls come at random, last up to most and take a part of the time.
	random := func(most time.Duration, part float64) func(time.Time) bool {
		r := rand.New(rand.NewPCG(3, 4))
		var until, next time.Time
		return func(now time.Time) bool {
			if !now.Before(next) {
				d := time.Duration(r.Float64() * float64(most))
				until = now.Add(d)
				next = until.Add(time.Duration(2 * r.Float64() * float64(d) * (1 - part) / part))
			}
			return now.Before(until)
		}
	}
	for _, tt := range []struct {
		name          string
		send, receive func(time.Time) bool
		loss, share   float64
	}{
		{"timers 10 ms late", every(12*time.Millisecond, 10*time.Millisecond), nil, 0, 0.9},
		{"receiver 20 ms late", nil, every(25*time.Millisecond, 20*time.Millisecond), 0, 0.9},
		{"both, at random", random(40*time.Millisecond, 0.4), random(40*time.Millisecond, 0.4), 0, 0.7},
		{"both, at random, 3 % lost", random(40*time.Millisecond, 0.4), random(40*time.Millisecond, 0.4), 0.03, 0.7},
		{"long ones", random(300*time.Millisecond, 0.15), random(300*time.Millisecond, 0.15), 0.01, 0.5},
	} {
		p := newPath(100*mbit, delay, delay)
		p.loss, p.sendStalls, p.receiveStalls = tt.loss, tt.send, tt.receive
		p.run(40 * delay)
		got, queue := p.run(20 * time.Second)
		t.Logf("%s: %.0f %% of what passes, rate %.1f Mbit/s, queue %v", tt.name, 100*got/(p.rate*(1-tt.loss)), p.c.Rate()/mbit, queue)
		if got < tt.share*p.rate*(1-tt.loss) {
			t.Errorf("%s: %.1f Mbit/s", tt.name, got/mbit)
		}
	}
}

func stalls(f func(time.Time) bool, now time.Time) bool { return f != nil && f(now) }

func TestFollowsTheRate(t *testing.T) {
	const delay = 50 * time.Millisecond
	p := newPath(100*mbit, delay, 0)
	p.queue = 64 << 10
	p.run(3 * time.Second)
	p.rate = 5 * mbit
	p.run(10 * delay)
	got, queue := p.run(10 * delay)
	t.Logf("at 5: %.2f Mbit/s, queue %v", got/mbit, queue)
	if rate := p.c.Rate(); rate > 6.5*mbit || queue > 50*time.Millisecond {
		t.Errorf("fallen to 5 Mbit/s: %.1f, queue %v", rate/mbit, queue)
	}
	p.rate = 100 * mbit
	p.queue = int(p.rate * 0.05)
	p.run(20 * delay)
	if got, _ := p.run(2 * time.Second); got < 90*mbit {
		t.Errorf("back at 100 Mbit/s: %.1f", got/mbit)
	}
}

// A path that is not full says nothing of its rate.
// On a near path nothing is paced, and yet the queue in front of the receiver
// stays short.
func TestNear(t *testing.T) {
	p := newPath(200e6, 500*time.Microsecond, time.Second)
	p.run(200 * time.Millisecond)
	goodput, queue := p.run(300 * time.Millisecond)
	if limit := 15 * time.Millisecond; goodput < 0.9*p.rate || queue > limit {
		t.Errorf("%.0f of %.0f MB/s with a queue of %v, want at most %v", goodput/1e6, p.rate/1e6, queue, limit)
	}
	if p.c.RoundTrip() >= near {
		t.Errorf("a round trip of %v is not near", p.c.RoundTrip())
	}
}

func TestLimitedByTheSender(t *testing.T) {
	p := newPath(100*mbit, 50*time.Millisecond, 50*time.Millisecond)
	p.run(3 * time.Second)
	before := p.c.Rate()
	spare := 0
	last := p.now
	p.backlog = func() int {
		spare += int(p.now.Sub(last).Seconds() * 1 * mbit)
		last = p.now
		if spare >= packet {
			spare -= packet
			return packet
		}
		return 0
	}
	// Sent is told that nothing waits.
	for range 2000 {
		p.now = p.now.Add(time.Millisecond)
		for len(p.reports) > 0 && !p.reports[0].at.After(p.now) {
			p.c.Report(p.now, p.reports[0].r)
			p.reports = p.reports[1:]
		}
		if p.backlog() > 0 {
			p.seq++
			p.c.Sent(p.now, 1, p.seq, p.seq, packet, true)
			p.received += packet
			p.reports = append(p.reports, coming{p.now.Add(p.delay), Report{SPI: 1, Highest: p.seq, Bytes: p.received, Arrived: uint32(p.now.UnixMicro())}})
		}
	}
	if after := p.c.Rate(); after < 0.9*before {
		t.Errorf("%.1f Mbit/s became %.1f", before/mbit, after/mbit)
	}
}

// Nothing that a peer reports breaks a Control or lets it send without bounds.
func FuzzControl(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, uint64(7))
	f.Fuzz(func(t *testing.T, script []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		now := time.Unix(1000, 0)
		c := New(now, time.Duration(r.Int64N(int64(time.Second))))
		seq := uint64(0)
		for _, b := range script {
			now = now.Add(time.Duration(r.Int64N(int64(50 * time.Millisecond))))
			switch {
			case b < 128:
				n := uint64(b%45) + 1
				c.Sent(now, uint32(b%2), seq+1, seq+n, int(n)*packet, b%3 == 0)
				seq += n
			case b < 250:
				c.Report(now, Report{SPI: uint32(b % 2), Highest: r.Uint64N(seq + 10), Bytes: r.Uint64() >> (b % 64), Arrived: r.Uint32(),
					Ago: time.Duration(r.Uint32()) * time.Microsecond, Lost: int(b)})
			case b < 253:
				c = c.Move(now, time.Duration(r.Int64N(int64(time.Second))))
			default:
				c.Lapse()
			}
			if c.Rate() < 0 || c.Rate() > maxRate || math.IsNaN(c.Rate()) || c.Flying() < 0 || c.Wait(now) > time.Hour {
				t.Fatalf("%+v, wait %v", *c, c.Wait(now))
			}
		}
	})
}
