package client

import (
	"cmp"
	"log/slog"
	"strconv"
	"time"

	"github.com/godwit-net/godwit/mobility"
)

// measureFor is how long after its start a registration that has ended is still
// measured: so long data may need to flow again.
const measureFor = 3 * time.Second

// A measure is what a registration did to the data.
type measure struct {
	number  uint32
	started time.Time
	done    bool

	from, to string // where data left before and leaves now; the same if it never moved
	verdict  mobility.Verdict

	packets, bytes uint64 // sent again; of the link's counters while not done
	out, in        time.Duration
}

// observe measures the newest registration, and keeps what was measured of as
// many as the registrar remembers.
func (c *Client) observe(now time.Time) {
	r := c.registrar.Last()
	if r.Number == 0 {
		return
	}
	n := len(c.timeline)
	if n > 0 && c.timeline[n-1].number == r.Number && c.timeline[n-1].started.Equal(r.Started) {
		if m := &c.timeline[n-1]; !m.done && r.Done && now.Sub(r.Started) >= measureFor {
			c.finish(m, r)
		}
		return
	}
	if n > 0 && !c.timeline[n-1].done {
		var last mobility.Record
		for _, h := range c.registrar.History() {
			if h.Number == c.timeline[n-1].number {
				last = h
			}
		}
		c.finish(&c.timeline[n-1], last)
	}
	if n >= mobility.HistorySize {
		c.timeline = append(c.timeline[:0], c.timeline[n-mobility.HistorySize+1:]...)
	}
	s := c.link.Stats()
	c.timeline = append(c.timeline, measure{number: r.Number, started: r.Started, from: c.where, to: c.where, packets: s.PacketsResent, bytes: s.BytesResent})
	c.link.WatchPauses(now)
}

// finish ends a measure, and logs it if the registration r has moved the data.
func (c *Client) finish(m *measure, r mobility.Record) {
	*m = c.measured(*m)
	m.done = true
	if m.from == m.to || m.from == "" {
		return
	}
	gap := func(d time.Duration) string {
		if d == 0 {
			return "none" // nothing was on its way
		}
		return strconv.FormatFloat(ms(d), 'f', 0, 64) + " ms"
	}
	c.log.Info("moved", slog.String("from", m.from), slog.String("to", m.to), slog.String("why", why(r.Trigger)),
		slog.String("gap_out", gap(m.out)), slog.String("gap_in", gap(m.in)), slog.Any("verdict", m.verdict), slog.Duration("took", r.Duration.Round(100*time.Microsecond)))
}

// why says in words what a registration came from.
func why(t mobility.Trigger) string {
	switch t {
	case mobility.TriggerConnect:
		return "found after connecting"
	case mobility.TriggerAddress:
		return "the network changed"
	case mobility.TriggerSilence:
		return "the old path fell silent"
	case mobility.TriggerSocket:
		return "the old path broke"
	case mobility.TriggerClimb:
		return "a better encapsulation passes"
	case mobility.TriggerAsked:
		return "asked to"
	case mobility.TriggerResume:
		return "the machine has slept"
	case mobility.TriggerStandby:
		return "the other network was lost"
	}
	return string(t)
}

// leaves takes note of where data leaves from now on.
func (c *Client) leaves(ca *carrier, v mobility.Verdict) {
	c.where = string(ca.name) + " at " + ca.desc.Source.String()
	if r := c.registrar; r != nil && r.Current().ID == ca.id && r.DownPath().ID != 0 {
		c.where += ", back by " + string(r.DownPath().Name)
	}
	if n := len(c.timeline); n > 0 && !c.timeline[n-1].done {
		m := &c.timeline[n-1]
		m.from = cmp.Or(m.from, c.where) // the first path of all
		m.to, m.verdict = c.where, v
	}
}

// finishAt is when the measure under way ends; zero if none waits for that.
func (c *Client) finishAt() time.Time {
	n := len(c.timeline)
	if n == 0 || c.timeline[n-1].done || !c.registrar.Last().Done {
		return time.Time{}
	}
	return c.timeline[n-1].started.Add(measureFor)
}

// measured is m with what has been measured by now.
func (c *Client) measured(m measure) measure {
	if m.done {
		return m
	}
	s := c.link.Stats()
	m.packets, m.bytes = s.PacketsResent-m.packets, s.BytesResent-m.bytes
	m.out, m.in = c.link.Pauses()
	return m
}

// measureOf is what is known of a registration's data.
func (c *Client) measureOf(r mobility.Record) measure {
	for i := len(c.timeline) - 1; i >= 0; i-- {
		if m := c.timeline[i]; m.number == r.Number && m.started.Equal(r.Started) {
			return c.measured(m)
		}
	}
	return measure{}
}
