package server

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Status is a snapshot of the server; its JSON names are an interface.
type Status struct {
	Clients     []ClientStatus `json:"clients"`
	TCPTimeouts uint64         `json:"tcp_timeouts"` // of retransmission timers inside the tunnels, this end's
	Totals      Totals         `json:"totals"`
	// Registrations are the last that have ended, of all clients, oldest first.
	Registrations []Registration `json:"registrations"`
}

// A ClientStatus is one client, connected or remembered.
type ClientStatus struct {
	Name          string   `json:"name"`
	Connected     bool     `json:"connected"`
	Inner         []string `json:"inner"`
	KeyExchange   string   `json:"key_exchange"` // what the keys came from, as in X25519+ML-KEM-768
	Encapsulation string   `json:"encapsulation"`
	Remote        string   `json:"remote"`
	Up            string   `json:"up,omitempty"` // by which the client's data comes, where that is not Encapsulation
	Verdict       string   `json:"verdict"`
	BytesSent     uint64   `json:"bytes_sent"`
	BytesReceived uint64   `json:"bytes_received"`
	BytesWaiting  int      `json:"bytes_waiting"` // for a path, by now
	BytesKept     int      `json:"bytes_kept"`    // to be sent again after a move, by now
	Spoofed       uint64   `json:"spoofed"`       // packets with a source that is not the client's
}

// statusTimeout bounds the wait for an owner that does not run.
const statusTimeout = 2 * time.Second

// Status tells how things are.
func (s *Server) Status() Status {
	var st Status
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	// A server that does not run has no clients.
	err := s.owner.Do(ctx, func(time.Time) {
		for _, p := range s.peers {
			st.Clients = append(st.Clients, p.status())
		}
		st.Totals, st.Registrations = s.total(), slices.Clone(s.timeline)
	})
	if err != nil {
		return Status{} // st may still be filled
	}
	st.TCPTimeouts = s.stack.Stats().Timeouts
	slices.SortFunc(st.Clients, func(a, b ClientStatus) int { return strings.Compare(a.Name, b.Name) })
	return st
}

func (p *peer) status() ClientStatus {
	n := p.link.Stats()
	c := ClientStatus{
		Name: p.user.Name, Connected: p.session != nil, Verdict: p.verdict.String(),
		BytesSent: n.BytesSent, BytesReceived: n.BytesReceived, BytesWaiting: n.BytesWaiting, BytesKept: n.BytesKept, Spoofed: p.spoofed.Load(),
	}
	for _, a := range []netip.Addr{p.user.Inner4, p.user.Inner6} {
		if a.IsValid() {
			c.Inner = append(c.Inner, a.String())
		}
	}
	if p.session != nil {
		c.KeyExchange = p.session.KeyExchanges().String()
	}
	if by := p.link.Carrier(); by != nil {
		c.Encapsulation, c.Remote = string(by.Name()), by.Describe().Destination.String()
		if p.binding != nil {
			if up, down := p.binding.Ways(); up != down {
				c.Encapsulation, c.Up = string(down), string(up)
			}
		}
	}
	return c
}
