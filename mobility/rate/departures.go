package rate

import (
	"sort"
	"time"
)

// A mark is what was known when a packet left; the rate is measured from there.
type mark struct {
	delivered uint64        // bytes
	arrived   uint32        // the receiver's clock then, microseconds
	firstSent time.Time     // when the packet left that was the last delivered
	fresh     bool          // nothing was on the way
	sent      uint64        // bytes in all, up to what was delivered last
	late      time.Duration // Control.late when that left
}

// A departure is packets that left together.
type departure struct {
	spi         uint32
	first, last uint64 // sequence numbers
	at          time.Time
	bytes       uint64 // sent in all with it
	size        int
	late        time.Duration // Control.late then
	limited     bool
	mark        mark
}

const (
	// maxDepartures bounds what is remembered; beyond it the oldest are
	// forgotten.
	maxDepartures = 8192
	// keepPackets below the highest reported are remembered, as far back as a
	// report tells.
	keepPackets = 1024
)

// departures are what has left, the oldest first. Numbers rise within an SA,
// and a newer SA follows an older one.
type departures struct{ list []departure }

func (d *departures) add(e departure) {
	if n := len(d.list); n >= maxDepartures {
		d.list = append(d.list[:0], d.list[n/4:]...)
	}
	d.list = append(d.list, e)
	// A report may overtake data that was numbered before it.
	for i := len(d.list) - 1; i > 0 && d.list[i-1].spi == e.spi && d.list[i-1].first > e.first; i-- {
		d.list[i-1], d.list[i] = d.list[i], d.list[i-1]
	}
}

func (d *departures) newest() *departure {
	if len(d.list) == 0 {
		return nil
	}
	return &d.list[len(d.list)-1]
}

// find gives what the packet with this number left with, or what left before it
// if that is not known: a few packets leave otherwise. Nil if both are unknown.
func (d *departures) find(spi uint32, seq uint64) *departure {
	// Those of an SA stand together, the newest SA at the end.
	end := len(d.list)
	for end > 0 && d.list[end-1].spi != spi {
		end--
	}
	if end == 0 {
		return nil
	}
	after := sort.Search(end, func(i int) bool { return d.list[i].spi == spi && d.list[i].first > seq })
	if after == 0 || d.list[after-1].spi != spi {
		return nil
	}
	return &d.list[after-1]
}

// forget drops what no report will speak of any more.
func (d *departures) forget(spi uint32, highest uint64) {
	n := 0
	for n < len(d.list)-1 && (d.list[n].spi != spi || d.list[n].last+keepPackets < highest) {
		n++
	}
	// Seldom, as it moves the rest.
	if n > len(d.list)/2 {
		d.list = append(d.list[:0], d.list[n:]...)
	}
}

// A window is the reports of late, to see what was delivered in a short time.
type window struct {
	ring [64]struct {
		arrived uint32
		bytes   uint64
		limited bool
	}
	n int
}

func (w *window) add(arrived uint32, bytes uint64, limited bool) {
	e := &w.ring[w.n%len(w.ring)]
	e.arrived, e.bytes, e.limited = arrived, bytes, limited
	w.n++
}

// rate is what was delivered in the last span or a little more, in bytes a
// second; ok is false if less is known or something else than the path set it.
func (w *window) rate(span time.Duration) (rate float64, ok bool) {
	if w.n == 0 {
		return 0, false
	}
	last := w.ring[(w.n-1)%len(w.ring)]
	for i := w.n - 1; i >= 0 && i > w.n-len(w.ring); i-- {
		e := w.ring[i%len(w.ring)]
		if e.limited {
			return 0, false
		}
		if d := time.Duration(last.arrived-e.arrived) * time.Microsecond; d >= span {
			return float64(last.bytes-e.bytes) / d.Seconds(), true
		}
	}
	return 0, false
}
