package link

import (
	"time"

	"github.com/godwit-net/godwit/transports"
)

// A second is a carrier by which everything is sent besides, for a while.
type second struct {
	carrier transports.Carrier
	until   time.Time
}

// AlsoUse sends everything that leaves by c, if that is in use, by also too: the
// same ESP packets, of which the peer takes the first to come. It ends after d,
// and when another carrier comes into use. The peer's address must be proven
// for also, which must carry datagrams: a stream could hold up the packets of
// both, so AlsoUse does nothing with one.
func (l *Link) AlsoUse(c, also transports.Carrier, d time.Duration) {
	if p := l.path.Load(); p != nil && p.carrier == c && also != c && datagrams(also) && d > 0 {
		p.also.Store(&second{carrier: also, until: time.Now().Add(d)})
	}
}

// sendAlso sends pkts by the second carrier, if there is one. What that does
// not take is lost there and matters to nobody.
func (p *path) sendAlso(pkts []transports.Packet) {
	s := p.also.Load()
	if s == nil {
		return
	}
	if time.Now().Before(s.until) && s.carrier.Send(pkts) == nil {
		return
	}
	p.also.CompareAndSwap(s, nil)
}
