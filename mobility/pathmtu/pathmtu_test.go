package pathmtu

import (
	"testing"
	"time"
)

const (
	ms      = time.Millisecond
	headers = 28 // IPv4 and UDP
)

// A path takes packets of some size and answers probes after a round trip.
type path struct {
	t       *testing.T
	now     time.Time
	rtt     time.Duration
	mtu     int              // of IP packets, with headers
	deaf    bool             // nothing passes
	refuses int              // the sender's own system takes no larger IP packets; 0: all
	lose    func(n int) bool // the n-th probe
	search  *Search
	idle    bool

	sent    []int
	answers []answer
}

type answer struct {
	at time.Time
	id uint32
}

func newPath(t *testing.T, mtu int, c Config) *path {
	p := &path{t: t, now: time.Unix(1e9, 0), rtt: 50 * ms, mtu: mtu}
	if c.Max == 0 {
		c.Max = 1500 - headers
	}
	c.Headers = headers
	p.search = New(p.now, c)
	return p
}

// run lets time pass until the time d from now.
func (p *path) run(d time.Duration) {
	end := p.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 100000 {
			p.t.Fatal("the search does not come to rest")
		}
		for _, pr := range p.search.Advance(p.now, p.rtt, p.idle) {
			p.sent = append(p.sent, pr.Size)
			size := max(pr.Size, 48) + headers
			if pr.Size > 0 && pr.Size%4 != 0 {
				p.t.Errorf("a probe of %d bytes", pr.Size)
			}
			switch {
			case p.refuses > 0 && size > p.refuses:
				p.search.Refused(p.now, pr.ID)
			case p.deaf || size > p.mtu || p.lose != nil && p.lose(len(p.sent)):
			default:
				p.answers = append(p.answers, answer{p.now.Add(p.rtt), pr.ID})
			}
		}
		next := p.search.NextTimeout()
		if len(p.answers) > 0 && (next.IsZero() || p.answers[0].at.Before(next)) {
			next = p.answers[0].at
		}
		if next.IsZero() || next.After(end) {
			p.now = end
			return
		}
		if next.After(p.now) {
			p.now = next
		}
		for len(p.answers) > 0 && !p.answers[0].at.After(p.now) {
			p.search.Acked(p.now, p.answers[0].id)
			p.answers = p.answers[1:]
		}
	}
}

func (p *path) want(what string, s State, mtu int) {
	p.t.Helper()
	if p.search.State() != s || p.search.PathMTU() > mtu || p.search.PathMTU() < mtu-grain {
		p.t.Errorf("%s: %v with %d bytes, want %v with %d", what, p.search.State(), p.search.PathMTU(), s, mtu)
	}
}

// TestPaths finds what paths take: RFC 8899, Section 5.2, BASE to SEARCHING to
// SEARCH_COMPLETE. Nothing but answers tells of them.
func TestPaths(t *testing.T) {
	for _, c := range []struct {
		mtu, max, refuses, first int
		within                   time.Duration
	}{
		{mtu: 1500, within: 60 * ms},
		{mtu: 1500, max: 8972, refuses: 1500, within: 60 * ms},
		{mtu: 9000, max: 8972, within: 60 * ms},
		{mtu: 1500, max: 8972, within: 3 * time.Second},
		{mtu: 1400, within: 2 * time.Second},
		{mtu: 1400, first: 1400, within: 2 * time.Second},
		{mtu: 1280, within: 2 * time.Second},
		{mtu: 1333, within: 3 * time.Second},
		{mtu: 1229, within: 3 * time.Second},
	} {
		p := newPath(t, c.mtu, Config{Max: c.max, First: max(c.first-headers, 0)})
		p.refuses = c.refuses
		p.want("before anything is known", Base, BaseSize+headers)
		p.run(c.within)
		p.want("found", Complete, c.mtu)
		n := len(p.sent)
		p.idle = true
		p.run(time.Hour)
		if len(p.sent) > n {
			t.Errorf("%d bytes: %d probes on an idle link", c.mtu, len(p.sent)-n)
		}
	}
}

// TestRemembered tries first what the path took before.
func TestRemembered(t *testing.T) {
	p := newPath(t, 1400, Config{First: 1400 - headers})
	p.run(0)
	if len(p.sent) != 1 || p.sent[0] != 1372 {
		t.Errorf("probes of %v bytes, want 1372 first", p.sent)
	}
	p.run(p.rtt)
	if got := p.search.PathMTU(); got != 1400 {
		t.Errorf("%d bytes after one round trip", got)
	}
}

// TestLoss loses probes of a path that takes them: MAX_PROBES of one size are lost
// until it counts as too big.
func TestLoss(t *testing.T) {
	p := newPath(t, 1500, Config{})
	p.lose = func(n int) bool { return n <= 2 }
	p.run(time.Second)
	p.want("two lost", Complete, 1500)

	p = newPath(t, 1500, Config{})
	p.lose = func(n int) bool { return n > 1 && n < 40 && n%2 == 0 }
	p.run(10 * time.Second)
	p.want("every other one lost", Complete, 1500)
}

// TestRaise tries larger packets again after PMTU_RAISE_TIMER, if data passes.
func TestRaise(t *testing.T) {
	p := newPath(t, 1400, Config{})
	p.run(5 * time.Second)
	p.want("found", Complete, 1400)
	p.mtu = 1500
	p.run(RaiseAfter - 10*time.Second)
	p.want("before the timer", Complete, 1400)
	p.run(20 * time.Second)
	p.want("after it", Complete, 1500)
}

// TestBlackHole makes a path narrower that was known.
func TestBlackHole(t *testing.T) {
	p := newPath(t, 1500, Config{})
	p.run(time.Second)
	p.want("found", Complete, 1500)

	p.search.Suspect(p.now)
	p.run(time.Second)
	p.want("a suspicion that is wrong", Complete, 1500)

	p.mtu = 1280
	p.search.Suspect(p.now)
	p.run(100 * ms)
	if got := p.search.Size(); got != BaseSize {
		t.Errorf("two round trips after the suspicion packets have %d bytes, want %d", got, BaseSize)
	}
	p.run(5 * time.Second)
	p.want("found anew", Complete, 1280)

	p.mtu = 700
	p.search.Suspect(p.now)
	p.run(time.Second)
	p.want("below the base", Failed, MinSize+headers)
	p.mtu = 1500
	p.run(5 * time.Second)
	p.want("wide again", Complete, 1500)
}

// TestDeaf has a path die: that is no black hole, and nobody is to be told so.
func TestDeaf(t *testing.T) {
	p := newPath(t, 1500, Config{})
	p.run(time.Second)
	p.deaf = true
	p.search.Suspect(p.now)
	p.run(time.Second)
	p.want("dead", Complete, 1500)

	p = newPath(t, 1500, Config{})
	p.deaf = true
	p.run(time.Minute)
	p.want("dead from the beginning", Base, BaseSize+headers)
	if len(p.sent) > 64 {
		t.Errorf("%d probes into nothing", len(p.sent))
	}
	p.deaf = false
	p.run(2 * time.Minute)
	p.want("alive", Complete, 1500)
}

// TestStrangeAnswers gives answers to what was never sent, and twice.
func TestStrangeAnswers(t *testing.T) {
	p := newPath(t, 1280, Config{})
	for id := range uint32(100) {
		p.search.Acked(p.now, id)
		p.search.Refused(p.now, id)
	}
	p.want("nothing sent", Base, BaseSize+headers)
	ps := p.search.Advance(p.now, p.rtt, false)
	p.search.Acked(p.now, ps[0].ID)
	p.search.Acked(p.now, ps[0].ID)
	p.want("answered twice", Searching, 1500)
}
