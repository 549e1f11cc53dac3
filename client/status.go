package client

import (
	"context"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/client/machine"
	"github.com/godwit-net/godwit/mobility"
)

// A Status is what `godwit status` shows; its JSON names are an interface.
type Status struct {
	State  string `json:"state"` // connecting, connected, moving, portal, stopped
	Server string `json:"server"`
	// Encapsulations are those that the client has, best first; Forced is the one
	// that all data has to go by, if somebody wanted that.
	Encapsulations []string `json:"encapsulations"`
	Forced         string   `json:"forced,omitempty"`
	Inner          []string `json:"inner"`
	// KeyExchange is what the keys came from, as in X25519+ML-KEM-768; empty
	// while there are none.
	KeyExchange string      `json:"key_exchange"`
	Path        *PathStatus `json:"path"`
	// Standby is the path over a second network that takes over when the first
	// is lost.
	Standby       *PathStatus    `json:"standby,omitempty"`
	Registrations []Registration `json:"registrations"`

	BytesSent       uint64 `json:"bytes_sent"`     // inner packets
	BytesReceived   uint64 `json:"bytes_received"` // inner packets
	PacketsSent     uint64 `json:"packets_sent"`   // ESP packets
	PacketsReceived uint64 `json:"packets_received"`
	PacketsDropped  uint64 `json:"packets_dropped"` // not ours, replayed, or damaged
	PacketsResent   uint64 `json:"packets_resent"`  // sent again after a move
	BytesWaiting    int    `json:"bytes_waiting"`   // for a path, by now
	BytesKept       int    `json:"bytes_kept"`      // to be sent again after a move, by now
	TCPTimeouts     uint64 `json:"tcp_timeouts"`    // of retransmission timers inside the tunnel, this end's
	IKESent         uint64 `json:"ike_sent"`        // IKE messages
	IKEReceived     uint64 `json:"ike_received"`

	// Portal tells of somebody who answers in the server's place, while the
	// state is portal.
	Portal *PortalStatus `json:"portal,omitempty"`
	// Machine tells how the whole machine is led through the tunnel, where it is.
	Machine *machine.Status `json:"machine,omitempty"`
	// LastError is why there is no connection, in words for a person.
	LastError string `json:"last_error,omitempty"`
}

// A PathStatus is the carrier in use.
type PathStatus struct {
	Encapsulation string    `json:"encapsulation"`
	Local         string    `json:"local"`
	Remote        string    `json:"remote"`
	Proxy         string    `json:"proxy,omitempty"` // host:port of the upstream proxy it goes through
	RTTms         float64   `json:"rtt_ms"`
	Verdict       string    `json:"verdict"`
	Since         time.Time `json:"since"`
	// The largest IP packets that the path takes from this end and to it, as far as is
	// known, in bytes; 0 if nothing is, as with streams. They are looked for some seconds
	// after a move, when data needs larger packets.
	MTUOut int `json:"mtu_out,omitempty"`
	MTUIn  int `json:"mtu_in,omitempty"`
	// Down is the carrier by which the server's data comes, where that is another:
	// no encapsulation passes both ways. Of its own Down, RTTms and sizes nothing is told.
	Down *PathStatus `json:"down,omitempty"`
}

// A Registration is one round of RREQ and RREP.
type Registration struct {
	Number     uint32    `json:"number"`
	Trigger    string    `json:"trigger"`
	Started    time.Time `json:"started"`
	Selected   string    `json:"selected"`
	Down       string    `json:"down,omitempty"` // by which the server's data comes, if that is another
	Verdict    string    `json:"verdict"`
	Revision   uint16    `json:"revision"`
	DurationMs float64   `json:"duration_ms"` // until the first usable reply
	Done       bool      `json:"done"`

	ResentPackets uint64 `json:"resent_packets"` // ESP packets that this end sent again
	ResentBytes   uint64 `json:"resent_bytes"`
	// The longest time without data while the registration ran, as seen at this
	// end, from the last data before it on; 0 on a link that was idle.
	GapOutMs float64 `json:"gap_out_ms"`
	GapInMs  float64 `json:"gap_in_ms"`

	Copies []Copy `json:"copies"`
}

// A Copy is what became of one registration over one encapsulation.
type Copy struct {
	Encapsulation string  `json:"encapsulation"`
	Local         string  `json:"local"`
	Remote        string  `json:"remote"`
	Sent          int     `json:"sent"`
	SentMs        float64 `json:"sent_ms"`  // when the last copies left, from the start of the registration
	ReplyMs       float64 `json:"reply_ms"` // when the first answer of full size came, from there; 0 without one
	Heard         bool    `json:"heard"`    // a reply came, if only to a small packet
	Answered      bool    `json:"answered"` // one of full size came
	// Arrived tells that the server has said, by whatever way, that it heard a
	// packet; ArrivedFull, one of full size.
	Arrived     bool    `json:"arrived"`
	ArrivedFull bool    `json:"arrived_full"`
	Came        bool    `json:"came,omitempty"` // a packet of full size came by it, asked for by another way
	RTTms       float64 `json:"rtt_ms"`
	Verdict     string  `json:"verdict"`
	Revision    uint16  `json:"revision"`
	Error       string  `json:"error,omitempty"`
}

// statusTimeout bounds the wait for an owner that does not run.
const statusTimeout = 2 * time.Second

// Status tells how things are.
func (c *Client) Status() Status {
	stopped := Status{State: "stopped", Server: c.c.Server}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	// A client that does not run has nothing to add.
	s := stopped
	if c.owner.Do(ctx, func(time.Time) { c.fill(&s) }) != nil {
		return stopped // s may still be filled
	}
	return s
}

// fill runs on the owner.
func (c *Client) fill(s *Status) {
	s.State, s.Forced = "connecting", string(c.forced)
	for _, t := range c.c.Transports {
		s.Encapsulations = append(s.Encapsulations, string(t.Name()))
	}
	if in := c.inner.Load(); in != nil {
		for _, a := range in.addresses {
			s.Inner = append(s.Inner, a.String())
		}
		s.TCPTimeouts = in.stack.Stats().Timeouts
	}
	if c.session != nil {
		s.KeyExchange = c.session.KeyExchanges().String()
	}
	n := c.link.Stats()
	s.BytesSent, s.BytesReceived = n.BytesSent, n.BytesReceived
	s.PacketsSent, s.PacketsReceived = n.PacketsSent, n.PacketsReceived
	s.PacketsResent = n.PacketsResent
	s.BytesWaiting, s.BytesKept = n.BytesWaiting, n.BytesKept
	s.PacketsDropped = c.table.Strays.Load() + n.PacketsTooBig + n.PacketsFull
	s.IKESent, s.IKEReceived = c.ikeSent.Load(), c.ikeReceived.Load()
	if c.lastErr != nil {
		s.LastError = c.lastErr.Error()
	}
	if c.foreign != nil {
		c.foreignStatus(s)
	}
	if c.parked() {
		defer func() {
			s.State, s.Portal = "portal", &PortalStatus{Evidence: c.portal.evidence, URL: c.portal.url}
		}()
	}
	if c.registrar == nil {
		return
	}
	s.State = "connected"
	if c.registrar.Registering() {
		s.State = "moving"
	}
	defer func() {
		if s.Path != nil {
			s.Path.MTUOut, s.Path.MTUIn, _ = c.link.PathMTU()
		}
	}()
	s.Path, s.Standby = c.path(c.registrar.Current()), c.path(c.registrar.StandbyPath())
	if s.Path != nil {
		s.Path.Down = c.path(c.registrar.DownPath())
	}
	for _, r := range c.registrar.History() {
		s.Registrations = append(s.Registrations, registration(r, c.measureOf(r)))
	}
}

// path is nil for none.
func (c *Client) path(p mobility.Path) *PathStatus {
	if p.ID == 0 {
		return nil
	}
	s := &PathStatus{
		Encapsulation: string(p.Name),
		Local:         p.Local.String(),
		Remote:        p.Remote.String(),
		RTTms:         ms(p.RTT),
		Verdict:       p.Verdict.String(),
		Since:         p.Since,
	}
	if ca := c.carriers[p.ID]; ca != nil {
		s.Proxy = ca.desc.Proxy
	}
	return s
}

func registration(r mobility.Record, m measure) Registration {
	out := Registration{
		Number: r.Number, Trigger: string(r.Trigger), Started: r.Started,
		Selected: string(r.Selected), Down: string(r.Down), Verdict: r.Verdict.String(), Revision: r.Revision,
		DurationMs: ms(r.Duration), Done: r.Done,
		ResentPackets: m.packets, ResentBytes: m.bytes, GapOutMs: ms(m.out), GapInMs: ms(m.in),
	}
	since := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return ms(max(0, t.Sub(r.Started)))
	}
	for _, cp := range r.Copies {
		out.Copies = append(out.Copies, Copy{
			Encapsulation: string(cp.Encapsulation), Local: text(cp.Local), Remote: text(cp.Remote),
			Sent: cp.Sent, SentMs: since(cp.SentAt), ReplyMs: since(cp.ReplyAt), Heard: cp.Heard, Answered: !cp.ReplyAt.IsZero(), Arrived: cp.Arrived, ArrivedFull: cp.ArrivedFull, Came: cp.Came, RTTms: ms(cp.RTT),
			Verdict: cp.Verdict.String(), Revision: cp.Revision, Error: cp.Error,
		})
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func text(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
