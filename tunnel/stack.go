// Package tunnel is a TCP/IP stack in user space: connections on one side,
// whole IP packets on the other.
//
// It wraps gVisor's netstack and shows nothing of it. A Stack has addresses but
// no neighbours: every packet leaves through Config.Output, and what arrives
// comes in through Stack.Input. TCP hands over whole segments of up to 64 KiB,
// because the stack's cost is per packet; Cut makes MTU-sized packets of them
// where they leave for the network, and the receiving stack takes either size.
//
// Connections outlive an outage: nothing here gives up on one within the first
// day; the constants in options.go tell the details.
//
// # Limitations
//
// No multicast, no IPv6 extension headers in what is sent, no
// path MTU discovery: the MTU is what Config says.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// InnerMTU is the MTU that both ends give their stacks: the largest inner packet
// on a datagram encapsulation, in bytes. With ESP, UDP and IPv6 around it stays
// within 1,480 bytes, which PPPoE and most tunnels on the way leave free.
const InnerMTU = 1380

// ForeignMTU is the MTU where the other end is not godwit. Nothing tests there
// what the path takes, so it is what nearly all do: the least that IPv6 has (RFC
// 8200, Section 5), in ESP and UDP some 1,350 bytes.
const ForeignMTU = 1280

// A Config makes a Stack.
type Config struct {
	// Addresses are the stack's own, IPv4 and IPv6, at least one. More may
	// come and go later.
	Addresses []netip.Addr

	// MTU is the largest IP packet in bytes that the way between the two
	// stacks carries; TCP's MSS follows from it. From 576 (1280 with an IPv6
	// address, RFC 8200, Section 5) to 65,535.
	MTU int

	// Output takes each packet that leaves, with its reference: Output must
	// see to its Release. It runs on the stack's goroutines while locks are
	// held. It must not block and must not call into this Stack or, directly,
	// another Stack's Input. It may be called from several goroutines; packets
	// of one connection come in order.
	Output func(Packet)

	// NoOffload keeps TCP to packets of the MTU, out and in.
	NoOffload bool

	// VerifyChecksums has the checksums of incoming packets verified, for
	// packets that the peer forwards: what ESP protects is the way from the
	// gateway, and they may have been damaged before. Packets of one TCP
	// connection then cross the stack one by one.
	VerifyChecksums bool

	// Mended says that packets lost on the way are sent again below: see
	// InputInOrder. TCP is set up for that.
	Mended bool

	// Forward makes the stack take packets to any address, and stand for all
	// hosts behind it; nil drops those that are not for the stack's own.
	Forward *Forward

	Logger *slog.Logger // nil discards
}

// A Stack is one end's TCP/IP. Its methods may be called from several
// goroutines.
type Stack struct {
	stack *stack.Stack
	link  *link
	input func(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) // deliver, made once
	log   *slog.Logger
	done  chan struct{} // closed by Close
	once  sync.Once     // of Close

	// mu is held for reading while packets go in, so that Close sees the last.
	mu     sync.RWMutex
	closed bool

	ahead atomic.Int64 // bytes of connections that wait in queues

	order order // of connections whose packets may be lost

	control tcpip.CongestionControlOption

	refused atomic.Uint64 // packets that Input has not shown to gVisor
	forward *Forward      // nil: packets to other addresses are dropped
}

const (
	minMTU   = 576
	minMTUv6 = 1280
	nic      = 1
)

// gVisor logs to standard error about what peers send. That is a peer's means
// to fill a disk, and nothing in it that a user could act on.
var silence = sync.OnceFunc(func() { log.SetTarget(discard{}) })

type discard struct{}

func (discard) Emit(int, log.Level, time.Time, string, ...any) {}

// New makes a Stack, ready for use.
func New(c Config) (*Stack, error) {
	switch {
	case len(c.Addresses) == 0:
		return nil, errors.New("tunnel: no address")
	case c.Output == nil:
		return nil, errors.New("tunnel: no output")
	case c.MTU < minMTU || c.MTU > maxPacket:
		return nil, fmt.Errorf("tunnel: MTU %d is not between %d and %d", c.MTU, minMTU, maxPacket)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	silence()
	s := &Stack{
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
			// A stack that forwards takes every address for its own, and would
			// refuse packets that come from one.
			HandleLocal: c.Forward == nil,
		}),
		link:    &link{mtu: uint32(c.MTU), output: c.Output, noOffload: c.NoOffload, verify: c.VerifyChecksums},
		forward: c.Forward,
		log:     c.Logger,
		done:    make(chan struct{}),
		control: c.control(),
	}
	s.input = s.deliver
	s.link.network = func(proto tcpip.NetworkProtocolNumber) stack.NetworkEndpoint {
		e, _ := s.stack.GetNetworkEndpoint(nic, proto)
		return e
	}
	s.order.deliver = s.deliver
	if err := s.start(&c); err != nil {
		s.Close()
		return nil, fmt.Errorf("tunnel: %w", err)
	}
	s.log.LogAttrs(context.Background(), slog.LevelDebug, "stack ready",
		slog.Any("addresses", c.Addresses), slog.Int("mtu", c.MTU))
	return s, nil
}

func (s *Stack) start(c *Config) error {
	if err := configure(s.stack, c); err != nil {
		return err
	}
	if err := s.stack.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("create the interface: %s", err)
	}
	s.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic, MTU: c.segments()},
		{Destination: header.IPv6EmptySubnet, NIC: nic, MTU: c.segments()},
	})
	for _, a := range c.Addresses {
		if err := s.AddAddress(a); err != nil {
			return err
		}
	}
	if s.forward != nil {
		return s.startForward()
	}
	return nil
}

// Close resets all connections, closes listeners and ends the stack's
// goroutines; it waits for them. Output is not called after it returned.
func (s *Stack) Close() {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.done)
		s.order.close()
		s.stack.Close()
		s.stack.Wait()
		s.link.shut()
	})
}

// Input hands whole IP packets to the stack, up to 65,535 bytes each and of
// any size above or below the MTU. It copies them; consecutive TCP segments
// become one of up to 64 KiB on the way, so a batch that arrived together
// should come in one call. Malformed packets and those for other addresses are
// dropped and counted. It may call Output, for what the stack answers at once.
//
// Without Config.VerifyChecksums those of IPv4, TCP and UDP are not looked at, but
// for fragments: the packets must have been protected by something better since they were made,
// as ESP does between two stacks of this package.
func (s *Stack) Input(pkts [][]byte) { s.put(pkts, nil, Way{}) }

// InputInOrder is Input for packets that came by way of something that sends
// lost ones again, and finds out how much it takes: TCP segments behind a gap
// wait for what is missing. Packets of one connection must always come like this
// for its places to be known.
func (s *Stack) InputInOrder(pkts [][]byte, way Way) { s.put(pkts, &s.order, way) }

func (s *Stack) put(pkts [][]byte, o *order, way Way) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return
	}
	c := coalescers.Get().(*coalescer)
	c.input, c.order, c.way = s.input, o, way
	for _, b := range pkts {
		if len(b) == 0 || len(b) > maxPacket || b[0]>>4 != 4 && b[0]>>4 != 6 {
			s.refused.Add(1)
			continue
		}
		if s.forward != nil && s.takeEcho(b) {
			continue
		}
		take := c.add
		if s.link.noOffload || s.link.verify {
			take = c.passParsed
		}
		before, b := s.link.windows.in(b, s.link.verify)
		if before != nil {
			take(before)
		}
		take(b)
	}
	c.flush()
	c.input, c.order = nil, nil
	coalescers.Put(c)
}

// deliver gives a packet and its reference to gVisor.
func (s *Stack) deliver(proto tcpip.NetworkProtocolNumber, pb *stack.PacketBuffer) {
	s.link.deliver(proto, pb)
	pb.DecRef()
}

// AddAddress adds an address of the stack's own. An address that it already
// has is an error, as is one that no host can have.
func (s *Stack) AddAddress(a netip.Addr) error {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return fmt.Errorf("add address %s: not a host's address", a)
	}
	if a.Is6() && s.link.mtu < minMTUv6 {
		// "IPv6 requires that every link in the Internet have an MTU of 1280
		// octets or greater." RFC 8200, Section 5
		return fmt.Errorf("add address %s: IPv6 needs an MTU of %d", a, minMTUv6)
	}
	err := s.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          protocol(a),
		AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("add address %s: %w", a, wrap(err))
	}
	return nil
}

// RemoveAddress removes an address. Connections from it stay but can no longer
// receive.
func (s *Stack) RemoveAddress(a netip.Addr) error {
	a = a.Unmap()
	if !a.IsValid() {
		return errors.New("remove address: not valid")
	}
	if err := s.stack.RemoveAddress(nic, tcpip.AddrFromSlice(a.AsSlice())); err != nil {
		return fmt.Errorf("remove address %s: %w", a, wrap(err))
	}
	return nil
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// full gives gVisor's form of an address; a must be unmapped.
func full(a netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{Port: a.Port()}
	if !a.Addr().IsUnspecified() {
		f.Addr = tcpip.AddrFromSlice(a.Addr().AsSlice())
	}
	return f
}

// Stats counts what a Stack has seen since New.
type Stats struct {
	Connections     uint64 // TCP connections established now
	Retransmissions uint64 // TCP segments sent again
	Timeouts        uint64 // of the TCP retransmission timer
	Malformed       uint64 // packets dropped for their form or checksum
	Misdirected     uint64 // packets dropped for their destination
}

// Stats gives the counters.
func (s *Stack) Stats() Stats {
	st := s.stack.Stats()
	return Stats{
		Connections:     st.TCP.CurrentEstablished.Value(),
		Retransmissions: st.TCP.Retransmits.Value(),
		Timeouts:        st.TCP.Timeouts.Value(),
		Malformed: s.refused.Load() + st.IP.MalformedPacketsReceived.Value() + st.NICs.MalformedL4RcvdPackets.Value() +
			st.TCP.InvalidSegmentsReceived.Value() + st.TCP.ChecksumErrors.Value() +
			st.UDP.MalformedPacketsReceived.Value() + st.UDP.ChecksumErrors.Value(),
		Misdirected: st.IP.InvalidDestinationAddressesReceived.Value(),
	}
}

// Resume tells that the network carries packets again after an outage. TCP has
// taken the silence for congestion, several times over, and would now creep:
// at a round trip of 50 ms, six seconds for what takes 0.3 without the outage.
// Connections whose retransmission timer has run out start afresh, as on a path
// of which nothing is known yet (RFC 9000, Section 9.4, gives the reason);
// the others keep what they know. Nothing is sent: call it before the packets
// of the last flight are sent again, whose acknowledgements set TCP going.
func (s *Stack) Resume() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return
	}
	for _, e := range s.stack.RegisteredEndpoints() {
		ep, ok := e.(*tcp.Endpoint)
		if !ok {
			continue
		}
		// Not in fast recovery: when that ends, gVisor would take the slow
		// start threshold, now infinite, for the congestion window.
		var info tcpip.TCPInfoOption
		if err := ep.GetSockOpt(&info); err != nil || info.CcState != tcpip.RTORecovery {
			continue
		}
		cc := s.control
		_ = ep.SetSockOpt(&cc) // sets the congestion state to its beginning; the name is a known one
	}
}
