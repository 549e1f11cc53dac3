package link

import (
	"github.com/godwit-net/godwit/transports"
)

// What must come soon can leave twice (Config.Duplicate): small datagrams of UDP
// inside, as of calls, games and name servers. Nothing sends them again in time, and
// they cost little. The copy is the same ESP packet: the peer's replay window takes
// the first that comes (RFC 4303, Section 3.4.3), so the peer need know nothing of it.

// twiceBytes is the largest inner packet that leaves twice.
const twiceBytes = 300

const protocolUDP = 17

// twice tells whether an inner packet is to leave twice.
func twice(pkt []byte) bool {
	switch {
	case len(pkt) < 40 || len(pkt) > twiceBytes:
		return false
	case pkt[0]>>4 == 4:
		return pkt[9] == protocolUDP
	}
	return pkt[0]>>4 == 6 && pkt[6] == protocolUDP
}

// sendAgain sends those of pkts, from the first of b.pkts, that are to leave twice.
// What the carrier does not take matters to nobody.
func (l *Link) sendAgain(b *buffers, p *path, first int, pkts []transports.Packet) {
	if !l.c.Duplicate || !datagrams(p.carrier) || !p.validated.Load() {
		return
	}
	for i := range pkts {
		if at := first + i; at < len(b.twice) && b.twice[at] {
			if p.carrier.Send(pkts[i:i+1]) != nil {
				return
			}
			l.packetsSent.Add(1)
		}
	}
}
