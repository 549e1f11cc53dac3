package client

import (
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
			*m = c.measured(*m)
			m.done = true
		}
		return
	}
	if n > 0 && !c.timeline[n-1].done {
		m := &c.timeline[n-1]
		*m = c.measured(*m)
		m.done = true
	}
	if n >= mobility.HistorySize {
		c.timeline = append(c.timeline[:0], c.timeline[n-mobility.HistorySize+1:]...)
	}
	s := c.link.Stats()
	c.timeline = append(c.timeline, measure{number: r.Number, started: r.Started, packets: s.PacketsResent, bytes: s.BytesResent})
	c.link.WatchPauses(now)
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
