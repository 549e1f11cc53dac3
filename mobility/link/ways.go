package link

import "github.com/godwit-net/godwit/transports"

// HearBy says that the peer's packets come by from, while ours leave by c, if that is in
// use: where no encapsulation passes both ways, each direction has one of its own. What
// comes by from is the answer to what left by c. A nil from takes it back, as Use does
// that moves to another carrier.
func (l *Link) HearBy(c, from transports.Carrier) {
	p := l.path.Load()
	if p == nil || p.carrier != c {
		return
	}
	if from == nil || from == c {
		p.from.Store(nil)
		return
	}
	p.from.Store(&from)
}

// WayBack is the carrier by which to answer what came by c.
func (l *Link) WayBack(c transports.Carrier) transports.Carrier {
	if p := l.path.Load(); p != nil && p.carrier != c && p.hears(c) {
		return p.carrier
	}
	return c
}

// hears tells whether c brings what the peer sends to those who are heard by p.
func (p *path) hears(c transports.Carrier) bool {
	if p == nil {
		return false
	}
	if p.carrier == c {
		return true
	}
	from := p.from.Load()
	return from != nil && *from == c
}
