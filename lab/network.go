package lab

import (
	"fmt"
	"net/netip"
	"time"
)

// A NetworkConfig describes an access network. The zero value is a network
// without delay, loss or limits, open in both directions.
type NetworkConfig struct {
	// Prefixes are where hosts get their addresses from, in order of hosts, from
	// .2 on. Two networks behind different NATs may use the same.
	Prefixes []netip.Prefix

	Link Link  // to and from the rest of the Internet
	Up   *Link // if set, the way out, instead of Link
	Down *Link // if set, the way in, instead of Link

	Firewall Firewall // between the links and the NAT; nil passes all
	NAT      *NAT     // nil: addresses are routed as they are

	// Parent is the network that this one is attached to, where it is not the
	// core: a second NAT at the provider, for example.
	Parent *Network
}

// A Network is an access network: hosts, and a router that joins them to the
// parent network.
type Network struct {
	in       *Internet
	name     string
	prefixes []netip.Prefix
	parent   *Network // nil for the core
	children []*Network

	// Guarded by in.mu.
	up, down *link
	firewall Firewall
	nat      *natState // nil without NAT
	local    map[netip.Addr]*iface
}

// AddNetwork adds an access network. It panics if the name is taken, or the
// NAT's outside address: the description contradicts itself.
func (in *Internet) AddNetwork(name string, c NetworkConfig) *Network {
	parent := c.Parent
	if parent == nil {
		parent = in.core
	}
	return in.addNetwork(name, c, parent)
}

func (in *Internet) addNetwork(name string, c NetworkConfig, parent *Network) *Network {
	in.lock()
	defer in.mu.Unlock()
	if in.networks[name] != nil {
		panic(fmt.Sprintf("lab: there is a network %q already", name))
	}
	n := &Network{
		in: in, name: name, prefixes: c.Prefixes, parent: parent,
		firewall: c.Firewall, local: make(map[netip.Addr]*iface),
	}
	up, down := c.Link, c.Link
	if c.Up != nil {
		up = *c.Up
	}
	if c.Down != nil {
		down = *c.Down
	}
	n.up = newLink(in, name, "up", up)
	n.down = newLink(in, name, "down", down)
	n.setNAT(c.NAT)
	in.networks[name] = n
	if parent != nil {
		parent.children = append(parent.children, n)
	}
	return n
}

// Name is the name that the network was added under.
func (n *Network) Name() string { return n.name }

// SetFirewall puts another firewall in place, from now on; nil passes all.
func (n *Network) SetFirewall(f Firewall) {
	n.in.lock()
	defer n.in.mu.Unlock()
	n.firewall = f
}

// SetLink gives both directions other properties, from now on. Packets under
// way arrive as they would have.
func (n *Network) SetLink(l Link) { n.SetLinks(l, l) }

// SetLinks is SetLink with a description for each direction.
func (n *Network) SetLinks(up, down Link) {
	n.in.lock()
	defer n.in.mu.Unlock()
	n.up = newLink(n.in, n.name, "up", up)
	n.down = newLink(n.in, n.name, "down", down)
}

// SetNAT replaces the NAT by another, which knows no mapping yet: a router that
// was restarted, or that was given another address. nil takes it away.
func (n *Network) SetNAT(c *NAT) {
	n.in.lock()
	defer n.in.mu.Unlock()
	n.setNAT(c)
}

func (n *Network) setNAT(c *NAT) {
	n.nat = nil
	if c == nil {
		return
	}
	for _, a := range c.Outside {
		if n.parent == nil || n.parent.taken(a, n) {
			panic(fmt.Sprintf("lab: network %q cannot have the outside address %v", n.name, a))
		}
	}
	n.nat = newNAT(*c)
}

// taken reports that somebody other than except has address a in n.
func (n *Network) taken(a netip.Addr, except *Network) bool {
	if n.local[a] != nil {
		return true
	}
	for _, c := range n.children {
		if c != except && c.nat.owns(a) {
			return true
		}
	}
	return false
}

// MTU of the way out, in bytes of IP packet.
func (n *Network) mtu() int { return n.up.MTU }

// enter takes p from a host or a network inside of n. The caller holds in.mu.
func (n *Network) enter(p *packet) {
	n.up.cross(p, func(p *packet) {
		if !n.judge(p, true) {
			return
		}
		n.out(p)
	})
}

// out routes p, which has passed n's way out and its firewall.
func (n *Network) out(p *packet) {
	if n.local[p.dst.Addr()] != nil {
		n.deliver(p)
		return
	}
	if c := n.towards(p.dst.Addr()); c != nil {
		c.inbound(p)
		return
	}
	if n.parent == nil {
		n.in.drop(p, n.name, ByRoute)
		return
	}
	if !n.translateOut(p) {
		n.in.drop(p, n.name, ByNAT)
		return
	}
	n.parent.enter(p)
}

// inbound takes p from outside of n.
func (n *Network) inbound(p *packet) {
	if !n.translateIn(p) {
		n.in.drop(p, n.name, ByNAT)
		return
	}
	if !n.judge(p, false) {
		return
	}
	n.inside(p)
}

// inside sends p over the way in.
func (n *Network) inside(p *packet) {
	n.down.cross(p, func(p *packet) {
		if c := n.towards(p.dst.Addr()); c != nil && n.local[p.dst.Addr()] == nil {
			c.inbound(p)
			return
		}
		n.deliver(p)
	})
}

// deliver hands p to the host that has its destination by now. It goes by way
// of an event, so that hosts without delay between them cannot recurse.
func (n *Network) deliver(p *packet) {
	n.in.at(time.Now(), func() {
		i := n.local[p.dst.Addr()]
		if i == nil {
			n.in.drop(p, n.name, ByAddress)
			return
		}
		i.host.receive(p)
	})
}

// towards gives the network below n that a is in, or nil.
func (n *Network) towards(a netip.Addr) *Network {
	for _, c := range n.children {
		if c.reaches(a) {
			return c
		}
	}
	return nil
}

// reaches reports that from outside of n, a is routed into n.
func (n *Network) reaches(a netip.Addr) bool {
	if n.nat.translates(a) {
		return n.nat.owns(a)
	}
	if n.local[a] != nil {
		return true
	}
	for _, p := range n.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return n.towards(a) != nil
}

// judge asks the firewall, and does what a reset asks for.
func (n *Network) judge(p *packet, outbound bool) bool {
	if n.firewall == nil {
		return true
	}
	q := Packet{Proto: p.shownProto(), Src: p.src, Dst: p.dst, Outbound: outbound, Payload: p.payload}
	if p.seg != nil {
		q.SYN, q.Offset = p.seg.syn && !p.seg.ack, p.seg.seq
	}
	v := n.firewall(q)
	if v == Pass {
		return true
	}
	n.in.drop(p, n.name, ByFirewall)
	if v != Reset {
		return false
	}
	var back, on *packet
	switch {
	case p.unreachable || p.seg != nil && p.seg.rst:
		return false // errors are not answered with errors
	case p.seg != nil:
		back, on = n.in.reset(p.dst, p.src), n.in.reset(p.src, p.dst)
	default:
		back = n.in.refusal(p)
	}
	inward, outward := on, back
	if outbound {
		inward, outward = back, on
	}
	if inward != nil {
		n.inside(inward)
	}
	if outward != nil {
		n.out(outward)
	}
	return false
}
