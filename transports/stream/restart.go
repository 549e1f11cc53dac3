package stream

import (
	"net"
	"time"
)

// BBR takes the fastest that packets were delivered within ten round trips for the
// path's rate, and leaves out what was slow as there was little to send. It does not
// always see that: acknowledgements of a transfer the other way, some of them lost, are taken for
// all that the path carries. What is sent next is paced at a hundredth of its rate
// and rises by a quarter in eight round trips. So where much is to be sent after a time with
// little, and the rate is not what it was, BBR begins anew and finds it in a few.
const (
	// muchBytes within muchTime is more than acknowledgements, of which a fast
	// download has some 20 kB in that time.
	muchBytes = 64 << 10
	muchTime  = 50 * time.Millisecond
	// quiet is a time with little, after which BBR may have forgotten.
	quiet = 500 * time.Millisecond
	// settled is how long much has to be sent for the rate to be right.
	settled = time.Second
)

// A pace is what a writer knows of its socket's rate.
type pace struct {
	rate    func() (bytesPerSecond uint64, ok bool) // nil: not a socket of the system
	restart func()

	since time.Time // muchTime is counted from then on
	bytes int       // written since
	begun time.Time // when much began to be sent
	much  time.Time // when it was last so; the socket's beginning before that
	asked time.Time
	known uint64 // the rate when much was sent; 0: never yet
}

func newPace(s Stream, now time.Time) *pace {
	p := &pace{much: now}
	if n, ok := s.(interface{ NetConn() net.Conn }); ok && n.NetConn() != nil {
		if t := socket(n.NetConn()); t != nil {
			p.rate = func() (uint64, bool) { return pacedRate(t) }
			p.restart = func() { restart(t) }
		}
	}
	return p
}

// writes notes that n bytes are about to be written.
func (p *pace) writes(n int, now time.Time) {
	if p.rate == nil {
		return
	}
	if now.Sub(p.since) > muchTime {
		p.since, p.bytes = now, 0
	}
	if p.bytes += n; p.bytes < muchBytes {
		return
	}
	p.bytes = 0
	switch last := p.much; {
	case now.Sub(last) > quiet:
		p.begun, p.asked = now, now
		if r, ok := p.rate(); ok && (p.known == 0 || r < p.known/4*3) {
			p.restart()
		}
	case !p.begun.IsZero() && now.Sub(p.begun) > settled && now.Sub(p.asked) > settled:
		p.asked = now
		p.known, _ = p.rate()
	}
	p.much = now
}
