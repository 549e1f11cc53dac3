package lab

import (
	"net/netip"
	"slices"
)

// A Verdict is what a firewall does with a packet.
type Verdict uint8

// The verdicts.
const (
	Pass  Verdict = iota // let it through
	Drop                 // lose it silently
	Reset                // lose it; reset both ends of a TCP connection, tell a UDP sender that nobody listens
)

// A Packet is what a firewall sees. Addresses are those inside the NAT.
type Packet struct {
	Proto    Proto
	Src, Dst netip.AddrPort
	Outbound bool   // it comes from inside the network; traffic within it counts as outbound
	Payload  []byte // of UDP or TCP; read only
	SYN      bool   // TCP: opens a connection
	Offset   uint64 // TCP: where in its direction's stream Payload starts, from 0
}

// A Firewall judges each packet at a network's border. It is called with the
// laboratory's lock held: it must return at once and call nothing of the
// laboratory. nil passes everything.
type Firewall func(Packet) Verdict

// Chain asks each firewall in turn; the first verdict other than Pass holds.
func Chain(fs ...Firewall) Firewall {
	return func(p Packet) Verdict {
		for _, f := range fs {
			if f == nil {
				continue
			}
			if v := f(p); v != Pass {
				return v
			}
		}
		return Pass
	}
}

// Outbound asks f about packets that leave the network only.
func Outbound(f Firewall) Firewall {
	return func(p Packet) Verdict {
		if p.Outbound {
			return f(p)
		}
		return Pass
	}
}

// Inbound asks f about packets that enter the network only.
func Inbound(f Firewall) Firewall {
	return func(p Packet) Verdict {
		if !p.Outbound {
			return f(p)
		}
		return Pass
	}
}

// DropAll loses every packet: a link that is up and carries nothing.
func DropAll(Packet) Verdict { return Drop }

// DropUDP loses UDP.
func DropUDP(p Packet) Verdict {
	if p.Proto == UDP {
		return Drop
	}
	return Pass
}

// DropTCP loses TCP.
func DropTCP(p Packet) Verdict {
	if p.Proto == TCP {
		return Drop
	}
	return Pass
}

// OnlyTCP loses everything but TCP.
func OnlyTCP(p Packet) Verdict {
	if p.Proto != TCP {
		return Drop
	}
	return Pass
}

// OnlyPort loses what is neither from nor to one of the ports.
func OnlyPort(ports ...uint16) Firewall {
	return func(p Packet) Verdict {
		if slices.Contains(ports, p.Src.Port()) || slices.Contains(ports, p.Dst.Port()) {
			return Pass
		}
		return Drop
	}
}

// DropLarger loses UDP and TCP payloads of more than size bytes: a path that
// lets small packets through and swallows large ones.
func DropLarger(size int) Firewall {
	return func(p Packet) Verdict {
		if len(p.Payload) > size {
			return Drop
		}
		return Pass
	}
}

// OnlyTLS443 passes nothing but TCP to port 443 whose stream begins as a TLS
// handshake record does (RFC 8446, Section 5.1: 0x16 0x03); another beginning
// is answered with a reset.
func OnlyTLS443(p Packet) Verdict {
	if p.Proto != TCP {
		return Drop
	}
	if p.Dst.Port() != 443 {
		if p.Src.Port() == 443 {
			return Pass
		}
		return Drop
	}
	start := [...]byte{0x16, 0x03}
	for i, b := range p.Payload {
		at := p.Offset + uint64(i)
		if at >= uint64(len(start)) {
			break
		}
		if b != start[at] {
			return Reset
		}
	}
	return Pass
}
