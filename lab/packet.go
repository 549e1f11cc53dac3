package lab

import "net/netip"

// A packet is a UDP datagram, a TCP segment, or the news that a datagram found
// nobody. Its payload is never written to.
type packet struct {
	id       uint64
	proto    Proto // UDP or TCP
	src, dst netip.AddrPort
	payload  []byte
	seg      *segment // TCP

	// unreachable marks the answer to a datagram that nobody listened for.
	// Having the datagram's addresses, swapped, it is translated on its way back
	// as a reply would be.
	unreachable bool
}

// A segment is the header of a TCP segment. Numbers count bytes from 0 in each
// direction; a SYN takes none and a FIN takes one.
type segment struct {
	syn, ack, fin, rst bool

	seq    uint64
	ackSeq uint64
	edge   uint64 // the receiver takes bytes before this one
	sacked []span // what has arrived beyond ackSeq
	mss    int    // in SYNs
	probe  bool   // asks for an acknowledgement, as a byte outside the window would
}

// A span is the numbers from, included, to to, excluded.
type span struct{ from, to uint64 }

func (p *packet) shownProto() Proto {
	if p.unreachable {
		return ICMP
	}
	return p.proto
}

// size is the packet's length as IP counts it, in bytes.
func (p *packet) size() int {
	transport := 8
	if p.seg != nil {
		transport = 20
	}
	return ipHeader(p.dst.Addr()) + transport + len(p.payload)
}

func ipHeader(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

func (p *packet) flags() string {
	if p.seg == nil {
		return ""
	}
	var f []byte
	for _, x := range []struct {
		set    bool
		letter byte
	}{{p.seg.syn, 'S'}, {p.seg.fin, 'F'}, {p.seg.rst, 'R'}, {p.seg.ack, 'A'}} {
		if x.set {
			f = append(f, x.letter)
		}
	}
	return string(f)
}

// reset makes a RST that seems to come from src.
func (in *Internet) reset(src, dst netip.AddrPort) *packet {
	in.packetID++
	return &packet{id: in.packetID, proto: TCP, src: src, dst: dst, seg: &segment{rst: true}}
}

// refusal makes the answer to a datagram that found nobody.
func (in *Internet) refusal(p *packet) *packet {
	in.packetID++
	return &packet{id: in.packetID, proto: UDP, src: p.dst, dst: p.src, unreachable: true}
}
