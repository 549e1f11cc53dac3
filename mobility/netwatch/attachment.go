package netwatch

import (
	"net"
	"net/netip"
	"strings"
)

// An Attachment is the point at which packets to some remote address leave this
// host. What the system does not tell is zero; with a zero Source there is no
// way at all.
type Attachment struct {
	Source netip.Addr   // the address that packets would have
	Prefix netip.Prefix // of Source on its interface

	Interface string // its name
	Index     int    // its number; another one means another interface of the same name
	// Ups counts how often the interface got its carrier. A network may be
	// another one after that, although all addresses are the same.
	Ups uint32

	Gateway netip.Addr // the next hop; not valid for a neighbour or a point-to-point link
	// GatewayLink is the next hop's link address, as the neighbour table has it:
	// what tells two networks of the same private addresses apart. It is
	// forgotten and learnt again while nothing moves.
	GatewayLink string
}

// Valid reports that packets can leave.
func (a Attachment) Valid() bool { return a.Source.IsValid() }

// Kind is the kind of interface, as its name has it: "wlan" of "wlan0".
func (a Attachment) Kind() string {
	kind, _, _ := strings.Cut(a.Interface, "0")
	return strings.TrimRight(kind, "123456789.:@")
}

// Follow gives the Attachment to remember when next follows a, and whether the
// host has moved between the two. A link address that is only forgotten, or
// learnt for the first time, is no move.
func (a Attachment) Follow(next Attachment) (Attachment, bool) {
	b := next
	b.GatewayLink = a.GatewayLink
	if a != b {
		return next, true
	}
	switch {
	case next.GatewayLink == "":
		return a, false
	case a.GatewayLink == "":
		return next, false
	}
	return next, a.GatewayLink != next.GatewayLink
}

// AttachmentTo tells how packets to remote would leave now. It sends nothing.
// The error is the system's, such as that there is no route.
func AttachmentTo(remote netip.Addr) (Attachment, error) { return Mark(0).AttachmentTo(remote) }

// A Mark is the fwmark of the packets that are asked about, SO_MARK of
// socket(7): rules may lead those that have it another way than all others
// (ip-rule(8)). The zero Mark is none, and where there are no marks every Mark
// is.
type Mark uint32

// AttachmentTo is AttachmentTo for packets with the mark. The process needs the
// right to set it.
func (m Mark) AttachmentTo(remote netip.Addr) (Attachment, error) {
	source, err := m.LocalAddress(remote)
	if err != nil {
		return Attachment{}, err
	}
	a := Attachment{Source: source}
	a.findInterface()
	a.findGateway(remote.Unmap(), m)
	return a, nil
}

// findInterface looks for the interface that has the source address.
func (a *Attachment) findInterface() {
	interfaces, err := net.Interfaces()
	if err != nil {
		return // the rest is worth something without it
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, x := range addrs {
			n, ok := x.(*net.IPNet)
			if !ok {
				continue
			}
			addr, _ := netip.AddrFromSlice(n.IP)
			if addr.Unmap() != a.Source.WithZone("") {
				continue
			}
			ones, _ := n.Mask.Size()
			a.Interface, a.Index = i.Name, i.Index
			a.Prefix = netip.PrefixFrom(a.Source.WithZone(""), ones).Masked()
			return
		}
	}
}
