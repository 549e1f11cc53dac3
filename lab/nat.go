package lab

import (
	"net/netip"
	"slices"
	"time"
)

// A Behaviour is how far a NAT's mapping or filtering depends on the peer,
// RFC 4787, Sections 4.1 and 5.
type Behaviour uint8

// The behaviours of RFC 4787. Each NAT has a default for mapping and one for
// filtering.
const (
	Default Behaviour = iota
	EndpointIndependent
	AddressDependent
	AddressAndPortDependent
)

// Timeouts of mappings: RFC 4787, REQ-5 (not before two minutes), and RFC 5382,
// REQ-5 (two hours and four minutes).
const (
	defaultUDPTimeout = 2 * time.Minute
	defaultTCPTimeout = 2*time.Hour + 4*time.Minute
)

// A NAT describes a translating router. IP versions for which it has no outside
// address pass untranslated.
type NAT struct {
	Outside []netip.Addr // its addresses in the parent network; the first of each IP version is used

	// ChangePort gives each mapping another port than the inside one (NAPT).
	// Otherwise the port is kept where it is free.
	ChangePort bool

	Mapping   Behaviour // EndpointIndependent by default
	Filtering Behaviour // AddressDependent by default

	// How long a mapping outlives its last outbound packet, RFC 4787, Section
	// 4.3. 0 is two minutes for UDP and 124 minutes for TCP.
	UDPTimeout, TCPTimeout time.Duration

	Forwards []Forward

	// NAT64 is a /96 prefix whose addresses stand for IPv4 ones, RFC 6052; the
	// zero Prefix is none. It needs an IPv4 address outside.
	NAT64 netip.Prefix
}

// A Forward is a port of the NAT's outside address that leads to a host inside.
type Forward struct {
	Proto  Proto
	Port   uint16         // outside
	Inside netip.AddrPort // where it leads to
}

// A natState is a NAT in use. Guarded by the Internet's lock; a nil one
// translates nothing.
type natState struct {
	NAT
	byInside  map[inner]*mapping
	byOutside map[outer]*mapping
	port      uint16 // the last one that was chosen
}

// inner is what a mapping belongs to. With endpoint-independent mapping peer is
// zero; else it is the peer, the port zero with address-dependent mapping.
type inner struct {
	proto  Proto
	inside netip.AddrPort
	peer   netip.AddrPort
}

type outer struct {
	proto   Proto
	outside netip.AddrPort
}

type mapping struct {
	inner   inner
	outer   outer
	used    time.Time // by the last outbound packet
	timeout time.Duration
	peers   map[netip.AddrPort]bool // that may answer, the port zero where filtering ignores it
}

// firstMapped is the first port that a NAT chooses.
const firstMapped = 61001

func newNAT(c NAT) *natState {
	if c.Mapping == Default {
		c.Mapping = EndpointIndependent
	}
	if c.Filtering == Default {
		c.Filtering = AddressDependent
	}
	if c.UDPTimeout == 0 {
		c.UDPTimeout = defaultUDPTimeout
	}
	if c.TCPTimeout == 0 {
		c.TCPTimeout = defaultTCPTimeout
	}
	return &natState{
		NAT:       c,
		byInside:  make(map[inner]*mapping),
		byOutside: make(map[outer]*mapping),
		port:      firstMapped - 1,
	}
}

// owns reports that a is one of the outside addresses.
func (s *natState) owns(a netip.Addr) bool {
	return s != nil && slices.Contains(s.Outside, a)
}

// translates reports that packets of a's IP version are translated.
func (s *natState) translates(a netip.Addr) bool {
	return s != nil && s.outside(a.Is4()).IsValid()
}

func (s *natState) outside(v4 bool) netip.Addr {
	for _, a := range s.Outside {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// masked is a as far as behaviour b looks at it.
func masked(a netip.AddrPort, b Behaviour) netip.AddrPort {
	switch b {
	case AddressAndPortDependent:
		return a
	case AddressDependent:
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return netip.AddrPort{}
}

// translateOut rewrites a packet that leaves n, making a mapping where needed.
func (n *Network) translateOut(p *packet) bool {
	s := n.nat
	dst := p.dst
	if s != nil && s.NAT64.IsValid() && s.NAT64.Contains(p.dst.Addr()) {
		b := p.dst.Addr().As16()
		dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), p.dst.Port())
	}
	if !s.translates(dst.Addr()) {
		return true
	}
	for _, f := range s.Forwards {
		if f.Proto == p.proto && f.Inside == p.src {
			p.src = netip.AddrPortFrom(s.outside(dst.Addr().Is4()), f.Port)
			p.dst = dst
			return true
		}
	}
	now := time.Now()
	key := inner{p.proto, p.src, masked(dst, s.Mapping)}
	m := s.byInside[key]
	if m != nil && s.expired(m, now) {
		m = nil
	}
	if m == nil {
		if p.unreachable {
			return false
		}
		if m = s.add(key, dst.Addr().Is4(), now); m == nil {
			return false
		}
	}
	// "NAT Outbound refresh behavior" is true: RFC 4787, REQ-6.
	m.used = now
	m.peers[masked(dst, s.Filtering)] = true
	p.src, p.dst = m.outer.outside, dst
	return true
}

// translateIn rewrites a packet that comes into n; it reports false where no
// mapping or filter lets it in.
func (n *Network) translateIn(p *packet) bool {
	s := n.nat
	if !s.translates(p.dst.Addr()) {
		return true
	}
	for _, f := range s.Forwards {
		if f.Proto == p.proto && f.Port == p.dst.Port() && s.owns(p.dst.Addr()) && f.Inside.Addr().Is4() == p.dst.Addr().Is4() {
			p.dst = f.Inside
			return true
		}
	}
	m := s.byOutside[outer{p.proto, p.dst}]
	if m == nil || s.expired(m, time.Now()) || !m.peers[masked(p.src, s.Filtering)] {
		return false
	}
	p.dst = m.inner.inside
	if p.dst.Addr().Is4() != p.src.Addr().Is4() {
		b, a := s.NAT64.Addr().As16(), p.src.Addr().As4()
		copy(b[12:], a[:])
		p.src = netip.AddrPortFrom(netip.AddrFrom16(b), p.src.Port())
	}
	return true
}

// expired forgets m if it is too old.
func (s *natState) expired(m *mapping, now time.Time) bool {
	if now.Sub(m.used) < m.timeout {
		return false
	}
	delete(s.byInside, m.inner)
	delete(s.byOutside, m.outer)
	return true
}

// add makes a mapping, or gives nil when no port is left.
func (s *natState) add(key inner, v4 bool, now time.Time) *mapping {
	free := func(port uint16) bool {
		o := outer{key.proto, netip.AddrPortFrom(s.outside(v4), port)}
		if m := s.byOutside[o]; m != nil && !s.expired(m, now) {
			return false
		}
		for _, f := range s.Forwards {
			if f.Proto == key.proto && f.Port == port {
				return false
			}
		}
		return true
	}
	port := key.inside.Port()
	if s.ChangePort || !free(port) {
		if port = s.choose(key.inside.Port(), free); port == 0 {
			return nil
		}
	}
	m := &mapping{
		inner: key,
		outer: outer{key.proto, netip.AddrPortFrom(s.outside(v4), port)},
		used:  now, timeout: s.UDPTimeout,
		peers: make(map[netip.AddrPort]bool),
	}
	if key.proto == TCP {
		m.timeout = s.TCPTimeout
	}
	s.byInside[m.inner], s.byOutside[m.outer] = m, m
	return m
}

// choose gives a free port that is not the one inside, or 0. It goes round, so
// that a new mapping does not get the port of one that has just ended.
func (s *natState) choose(inside uint16, free func(uint16) bool) uint16 {
	const lowest = 1024
	for range 65536 - lowest {
		s.port++
		if s.port < lowest {
			s.port = lowest
		}
		if s.port != inside && free(s.port) {
			return s.port
		}
	}
	return 0
}
