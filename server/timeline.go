package server

import (
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

const (
	// measureFor is how long after its start a registration is measured: so long
	// data may need to flow again.
	measureFor = 3 * time.Second
	// timelineSize is how many registrations of all clients together are remembered.
	timelineSize = 256
)

// GapBounds are the upper bounds of the buckets that gaps are counted in, in
// seconds, smallest first. What is longer than the last is counted behind it.
var GapBounds = [...]float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// Gaps counts the pauses in the data of one direction that moves have left.
type Gaps struct {
	Buckets [len(GapBounds) + 1]uint64 `json:"buckets"` // each for itself, not summed up
	Count   uint64                     `json:"count"`
	Seconds float64                    `json:"seconds"` // of all together
}

func (g *Gaps) add(d time.Duration) {
	i := 0
	for i < len(GapBounds) && d.Seconds() > GapBounds[i] {
		i++
	}
	g.Buckets[i]++
	g.Count++
	g.Seconds += d.Seconds()
}

// A Kind is what registrations are counted by.
type Kind struct {
	Trigger       string `json:"trigger"`       // empty if the client does not tell
	Encapsulation string `json:"encapsulation"` // by which the server's data leaves
	Verdict       string `json:"verdict"`
}

// A Registration is one of a client's, as the server has seen it.
type Registration struct {
	Client string `json:"client"`
	Number uint32 `json:"number"`
	Kind
	Started time.Time `json:"started"`
	Moved   bool      `json:"moved"` // the server's data leaves by another way than before
	From    string    `json:"from,omitempty"`
	To      string    `json:"to,omitempty"`
	Up      string    `json:"up,omitempty"` // by which the client's data comes, if that is another than To

	ResentPackets uint64 `json:"resent_packets"` // ESP packets that the server sent again
	ResentBytes   uint64 `json:"resent_bytes"`
	// The longest time without data while it was measured, as seen at the server;
	// 0 on a link that was idle.
	GapOutMs float64 `json:"gap_out_ms"`
	GapInMs  float64 `json:"gap_in_ms"`
}

// A measure is a registration that runs.
type measure struct {
	number         uint32
	trigger        regmsg.Trigger
	started        time.Time
	from           string
	packets, bytes uint64 // that the link had sent again before
}

// observe begins to measure the registration that a request belongs to, unless
// that is measured already. A decision for what was only probed before is a
// registration of its own.
func (s *Server) observe(now time.Time, p *peer, r *regmsg.Request) {
	if m := p.measure; m != nil {
		if m.number == r.Number && m.trigger == r.Trigger {
			return
		}
		s.finish(p)
	} else if p.measured.number == r.Number && p.measured.trigger == r.Trigger {
		return // it has been counted
	}
	n := p.link.Stats()
	p.measure = &measure{number: r.Number, trigger: r.Trigger, started: now, from: p.leavesBy(), packets: n.PacketsResent, bytes: n.BytesResent}
	p.measured = *p.measure
	p.link.WatchPauses(now)
}

// finish ends the measure under way and counts it.
func (s *Server) finish(p *peer) {
	m := p.measure
	p.measure = nil
	n := p.link.Stats()
	out, in := p.link.Pauses()
	r := Registration{
		Client: p.user.Name, Number: m.number, Started: m.started, From: m.from, To: p.leavesBy(),
		Kind:          Kind{Trigger: m.trigger.String(), Verdict: p.verdict.String()},
		ResentPackets: n.PacketsResent - m.packets, ResentBytes: n.BytesResent - m.bytes,
		GapOutMs: float64(out) / float64(time.Millisecond), GapInMs: float64(in) / float64(time.Millisecond),
	}
	if c := p.link.Carrier(); c != nil {
		r.Encapsulation = string(c.Name())
	}
	if p.binding != nil {
		if up, down := p.binding.Ways(); up != down {
			r.Up = string(up)
		}
	}
	r.Moved = r.From != r.To
	s.totals.kinds[r.Kind]++
	if r.Moved {
		s.totals.out.add(out)
		s.totals.in.add(in)
	}
	if len(s.timeline) == timelineSize {
		s.timeline = append(s.timeline[:0], s.timeline[1:]...)
	}
	s.timeline = append(s.timeline, r)
}

// leavesBy says by what the server's data leaves to p.
func (p *peer) leavesBy() string {
	c := p.link.Carrier()
	if c == nil {
		return ""
	}
	return string(c.Name()) + " to " + c.Describe().Destination.String()
}
