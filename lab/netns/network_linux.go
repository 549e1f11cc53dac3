package netns

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// The addresses of the network's fixed hosts.
var (
	ServerIPv4 = netip.MustParseAddr("198.51.100.2")
	ServerIPv6 = netip.MustParseAddr("fd00:5::2")
	TargetIPv4 = netip.MustParseAddr("192.0.2.10")
	TargetIPv6 = netip.MustParseAddr("fd00:7::10")
	// TargetNet is what a server has to allow for egress to the target.
	TargetNet     = netip.MustParsePrefix("192.0.2.0/24")
	TargetNetIPv6 = netip.MustParsePrefix("fd00:7::/64")

	anyIPv4 = netip.MustParsePrefix("0.0.0.0/0")
	anyIPv6 = netip.MustParsePrefix("::/0")
)

// NAT is what the router of an access network does to source addresses.
type NAT uint8

// The kinds of NAT.
const (
	NoNAT       NAT = iota // plain routing
	KeepPorts              // one address for all, ports kept where they are free
	RandomPorts            // one address for all, ports always changed
)

// String gives the verdict that godwit should come to.
func (n NAT) String() string {
	switch n {
	case NoNAT:
		return "none"
	case KeepPorts:
		return "nat"
	case RandomPorts:
		return "napt"
	}
	return fmt.Sprintf("NAT(%d)", uint8(n))
}

// A Firewall is nftables rules for what crosses an access network's router; a
// packet that no rule drops passes. The zero value passes everything. With any
// other, nothing comes in but answers to what passed.
type Firewall struct {
	Out string // for packets that clients send
	In  string // for packets to clients, before it is asked whether they are answers
}

// The firewalls of the usual bad networks.
var (
	AllowAll = Firewall{}
	// TCPOnly passes TCP and swallows all else.
	TCPOnly = Firewall{
		Out: "meta l4proto != tcp counter drop",
		In:  "meta l4proto != tcp counter drop",
	}
	// TLSOnly passes TCP to port 443, and resets a connection whose first
	// bytes are not those of a TLS handshake record (RFC 8446, Section 5.1).
	// A match on @ih is one on TCP's payload and fails where there is none,
	// so that packets without payload pass.
	TLSOnly = Firewall{
		Out: `
			meta l4proto != tcp counter drop
			tcp dport != 443 counter reject with tcp reset
			ct mark 1 accept
			@ih,0,16 0x1603 ct mark set 1 accept
			@ih,0,8 != 0x16 counter reject with tcp reset
			@ih,8,8 != 0x03 counter reject with tcp reset`,
		In: "meta l4proto != tcp counter drop",
	}
	// NoTraffic swallows everything, and the link stays up.
	NoTraffic = Firewall{Out: "counter drop", In: "counter drop"}
)

// Families says which versions of IP an access network has.
type Families uint8

// The families; the zero value of a configuration means IPv4.
const (
	IPv4 Families = 1 << iota
	IPv6
	DualStack = IPv4 | IPv6
)

// An AccessConfig describes one access network.
type AccessConfig struct {
	Name     string // of at most 12 letters: devices are called after it
	NAT      NAT
	Firewall Firewall
	Families Families
	Delay    time.Duration // one way, between its router and the core
	MTU      int           // there; 1500 if 0
}

// A Config describes a network.
type Config struct {
	Access  []AccessConfig // at most 60
	Clients []string       // names; one called client if empty. Each has a link to each access network
}

// A Network is the usual network: see README.md.
type Network struct {
	*Lab
	Core, Server, Target *Host
	Access               []*Access
	Clients              []*Client
}

// An Access is an access network and its router.
type Access struct {
	Name   string
	Router *Host
	NAT    NAT
	// Uplink is the router's own address in the core, from which packets that
	// went through NAT come.
	Uplink netip.Addr
	Relay  *Relay // nil without delay

	families Families
	index    int
}

// New builds a network in which every client is attached to the first access
// network.
func New(t testing.TB, c Config) *Network {
	t.Helper()
	l := NewLab(t)
	n := &Network{Lab: l, Core: l.Host("core"), Server: l.Host("server"), Target: l.Host("target")}
	n.Core.Forward()
	l.Wire(
		Port{Host: n.Core, Dev: "server", Addrs: prefixes("198.51.100.1/24", "fd00:5::1/64")},
		Port{Host: n.Server, Dev: "wan", Addrs: prefixes("198.51.100.2/24", "fd00:5::2/64")})
	n.Server.Route(anyIPv4, netip.MustParseAddr("198.51.100.1"), "wan", 0)
	n.Server.Route(anyIPv6, netip.MustParseAddr("fd00:5::1"), "wan", 0)
	// The server does not forward, so what reaches the target left the
	// server's own sockets.
	l.Wire(
		Port{Host: n.Server, Dev: "inside", Addrs: prefixes("192.0.2.1/24", "fd00:7::1/64")},
		Port{Host: n.Target, Dev: "eth0", Addrs: prefixes("192.0.2.10/24", "fd00:7::10/64")})

	for i, a := range c.Access {
		n.Access = append(n.Access, n.access(i, a))
	}
	if len(c.Clients) == 0 {
		c.Clients = []string{"client"}
	}
	for i, name := range c.Clients {
		n.Clients = append(n.Clients, n.client(i, name))
	}
	return n
}

// access builds the router and the uplink of one access network.
func (n *Network) access(i int, c AccessConfig) *Access {
	n.t.Helper()
	if c.Families == 0 {
		c.Families = IPv4
	}
	a := &Access{Name: c.Name, Router: n.Host(c.Name), NAT: c.NAT, families: c.Families, index: i}
	a.Router.Forward()
	a.Router.Bridge("lan", a.lan(1)...)

	var up, down []netip.Prefix // the router's and the core's end
	if c.Families&IPv4 != 0 {
		down = append(down, prefixes(fmt.Sprintf("203.0.113.%d/30", 4*i+1))...)
		up = append(up, prefixes(fmt.Sprintf("203.0.113.%d/30", 4*i+2))...)
	}
	if c.Families&IPv6 != 0 {
		down = append(down, prefixes(fmt.Sprintf("fd00:f%02x::1/64", i))...)
		up = append(up, prefixes(fmt.Sprintf("fd00:f%02x::2/64", i))...)
	}
	a.Uplink = up[0].Addr()
	core := Port{Host: n.Core, Dev: c.Name, MTU: c.MTU, Addrs: down}
	router := Port{Host: a.Router, Dev: "up", MTU: c.MTU, Addrs: up}
	if c.Delay > 0 {
		a.Relay = n.Relay(core, router, c.Delay)
	} else {
		n.Wire(core, router)
	}
	for j := range up {
		all := anyIPv4
		if down[j].Addr().Is6() {
			all = anyIPv6
		}
		a.Router.Route(all, down[j].Addr(), "up", 0)
		if c.NAT == NoNAT {
			n.Core.Route(a.lan(1)[j], up[j].Addr(), c.Name, 0)
		}
	}
	a.setNAT()
	a.SetFirewall(c.Firewall)
	return a
}

// lan gives the addresses of host number k in the access network.
func (a *Access) lan(k int) (ps []netip.Prefix) {
	if a.families&IPv4 != 0 {
		ps = append(ps, prefixes(fmt.Sprintf("10.%d.0.%d/24", a.index+1, k))...)
	}
	if a.families&IPv6 != 0 {
		ps = append(ps, prefixes(fmt.Sprintf("fd00:a%02x::%x/64", a.index, k))...)
	}
	return ps
}

func (a *Access) setNAT() {
	rule := map[NAT]string{
		NoNAT:       "",
		KeepPorts:   `oifname "up" masquerade`,
		RandomPorts: `oifname "up" masquerade fully-random`,
	}[a.NAT]
	a.Router.Rules(fmt.Sprintf(`
		table inet nat {
			chain postrouting {
				type nat hook postrouting priority srcnat; policy accept;
				%s
			}
		}`, rule))
}

// SetFirewall replaces the firewall, for packets that come from now on.
func (a *Access) SetFirewall(f Firewall) {
	in := f.In + `
				ct state established,related accept
				counter drop`
	if f == AllowAll {
		in = "accept"
	}
	// One transaction: no packet sees the time between the two.
	a.Router.Rules(fmt.Sprintf(`
		table inet firewall
		delete table inet firewall
		table inet firewall {
			chain in {
				%s
			}
			chain out {
				%s
			}
			chain forward {
				type filter hook forward priority filter; policy accept;
				iifname "up" goto in
				jump out
			}
		}`, in, f.Out))
}

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, s := range s {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}
