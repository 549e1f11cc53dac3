package server

import (
	"cmp"
	"slices"
)

// Totals counts what all clients together have done since the server was started.
// Its JSON names are an interface.
type Totals struct {
	Connected   int    `json:"connected"`   // clients, by now
	Remembered  int    `json:"remembered"`  // clients without a connection whose streams wait for them, by now
	TwoWays     int    `json:"two_ways"`    // clients whose data comes by another encapsulation than the server's leaves by, by now
	Connections uint64 `json:"connections"` // IKE SAs made

	BytesSent       uint64 `json:"bytes_sent"` // inner packets
	BytesReceived   uint64 `json:"bytes_received"`
	PacketsSent     uint64 `json:"packets_sent"` // ESP packets
	PacketsReceived uint64 `json:"packets_received"`
	PacketsResent   uint64 `json:"packets_resent"` // ESP packets sent again after moves
	BytesResent     uint64 `json:"bytes_resent"`

	Registrations []Count `json:"registrations"` // those that have ended
	Rebound       uint64  `json:"rebound"`       // times that a client's address changed without one
	Unused        uint64  `json:"unused"`        // registration messages that were late, old or wrong
	GapsOut       Gaps    `json:"gaps_out"`      // in the server's data, by moves
	GapsIn        Gaps    `json:"gaps_in"`       // in the clients'
	Drops         Drops   `json:"drops"`
}

// A Count is how many registrations there were of one kind.
type Count struct {
	Kind
	Count uint64 `json:"count"`
}

// Drops counts dropped packets by reason.
type Drops struct {
	UnknownSA uint64 `json:"unknown_sa"` // ESP packets that belong to no client
	Replayed  uint64 `json:"replayed"`   // ESP packets that came twice or too late
	Damaged   uint64 `json:"damaged"`    // ESP packets that do not authenticate or are malformed
	Spoofed   uint64 `json:"spoofed"`    // inner packets with a source that is not their client's
	TooBig    uint64 `json:"too_big"`    // inner packets that no carrier could take
	QueueFull uint64 `json:"queue_full"` // inner packets for a client that takes them too slowly
}

// totals is what is counted on the owner.
type totals struct {
	kinds       map[Kind]uint64
	unused      uint64
	rebound     uint64
	connections uint64
	out, in     Gaps
	gone        sums // of the clients that were forgotten
}

// sums is what is counted in each client.
type sums struct {
	bytesSent, bytesReceived, packetsSent, packetsReceived, packetsResent, bytesResent uint64
	spoofed, tooBig, queueFull                                                         uint64
}

func (s *sums) add(p *peer) {
	n := p.link.Stats()
	s.bytesSent += n.BytesSent
	s.bytesReceived += n.BytesReceived
	s.packetsSent += n.PacketsSent
	s.packetsReceived += n.PacketsReceived
	s.packetsResent += n.PacketsResent
	s.bytesResent += n.BytesResent
	s.spoofed += p.spoofed.Load()
	s.tooBig += n.PacketsTooBig
	s.queueFull += n.PacketsFull
}

// total runs on the owner.
func (s *Server) total() Totals {
	sum := s.totals.gone
	t := Totals{Connections: s.totals.connections, Unused: s.totals.unused, Rebound: s.totals.rebound, GapsOut: s.totals.out, GapsIn: s.totals.in}
	for _, p := range s.peers {
		sum.add(p)
		if p.session != nil {
			t.Connected++
			if b := p.binding; b != nil {
				if up, down := b.Ways(); up != down {
					t.TwoWays++
				}
			}
		} else {
			t.Remembered++
		}
	}
	t.BytesSent, t.BytesReceived = sum.bytesSent, sum.bytesReceived
	t.PacketsSent, t.PacketsReceived = sum.packetsSent, sum.packetsReceived
	t.PacketsResent, t.BytesResent = sum.packetsResent, sum.bytesResent
	unclaimed, replayed := s.table.Unclaimed.Load(), s.table.Replayed.Load()
	strays := s.table.Strays.Load() // last: it may only have grown meanwhile
	t.Drops = Drops{
		UnknownSA: unclaimed, Replayed: replayed, Damaged: strays - unclaimed - replayed,
		Spoofed: sum.spoofed, TooBig: sum.tooBig, QueueFull: sum.queueFull,
	}
	for k, n := range s.totals.kinds {
		t.Registrations = append(t.Registrations, Count{k, n})
	}
	slices.SortFunc(t.Registrations, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Trigger, b.Trigger), cmp.Compare(a.Encapsulation, b.Encapsulation), cmp.Compare(a.Verdict, b.Verdict))
	})
	return t
}
