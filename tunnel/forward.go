package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// maxHandshakes bounds the TCP connections whose targets have not answered yet;
// further SYNs are dropped, and come again.
const maxHandshakes = 1024

// A Forward takes what packets to other addresses than the stack's own begin,
// so that the stack stands for all hosts behind it. Its functions get addresses
// without any check. A nil function drops.
type Forward struct {
	// TCP is called for a connection's first SYN, on a goroutine of its own.
	// accept completes the handshake and gives the connection; if TCP returns
	// without calling it, or its error is not nil, the connection is reset.
	TCP func(from, to netip.AddrPort, accept func() (net.Conn, error))
	// UDP is called for each datagram, whole and in order. It must not block,
	// and may keep the payload.
	UDP func(from, to netip.AddrPort, payload []byte)
	// Echo is called for each ICMP echo request that is not a fragment: message
	// is the ICMP message from its type on, with a checksum that is right. It
	// must not block, and may keep the message.
	Echo func(from, to netip.Addr, message []byte)
}

// startForward makes the stack take packets to any address.
func (s *Stack) startForward() error {
	f := s.forward
	if err := s.stack.SetPromiscuousMode(nic, true); err != nil {
		return fmt.Errorf("forward: %s", err)
	}
	if err := s.stack.SetSpoofing(nic, true); err != nil {
		return fmt.Errorf("forward: %s", err)
	}
	handshakes := tcp.NewForwarder(s.stack, 0, maxHandshakes, func(r *tcp.ForwarderRequest) { s.forwardTCP(f.TCP, r) })
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, handshakes.HandlePacket)
	s.stack.SetTransportProtocolHandler(udp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		// An RST or an ICMP error is for those who listen nowhere; here
		// everything that is well-formed has been taken.
		return s.forwardUDP(f.UDP, id, pkt)
	})
	return nil
}

func flowOf(id stack.TransportEndpointID) (from, to netip.AddrPort) {
	ap := func(a tcpip.Address, port uint16) netip.AddrPort {
		ip, _ := netip.AddrFromSlice(a.AsSlice())
		return netip.AddrPortFrom(ip, port)
	}
	return ap(id.RemoteAddress, id.RemotePort), ap(id.LocalAddress, id.LocalPort)
}

func (s *Stack) forwardTCP(handle func(from, to netip.AddrPort, accept func() (net.Conn, error)), r *tcp.ForwarderRequest) {
	reset := true
	defer func() { r.Complete(reset) }()
	if handle == nil || s.isClosed() {
		reset = false
		return
	}
	from, to := flowOf(r.ID())
	handle(from, to, func() (net.Conn, error) {
		wq := new(waiter.Queue)
		ep, terr := r.CreateEndpoint(wq)
		if terr != nil {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: net.TCPAddrFromAddrPort(from), Err: wrap(terr)}
		}
		reset = false
		configureEndpoint(ep)
		return newConn(s, wq, ep), nil
	})
}

func (s *Stack) forwardUDP(handle func(from, to netip.AddrPort, payload []byte), id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	n := pkt.Network()
	lengthValid, sumValid := header.UDPValid(header.UDP(pkt.TransportHeader().Slice()),
		func() uint16 { return pkt.Data().Checksum() }, uint16(pkt.Data().Size()), pkt.NetworkProtocolNumber,
		n.SourceAddress(), n.DestinationAddress(), pkt.RXChecksumValidated)
	if !lengthValid || !sumValid {
		s.refused.Add(1)
		return true
	}
	if handle != nil {
		from, to := flowOf(id)
		handle(from, to, pkt.Data().AsRange().ToSlice())
	}
	return true
}

// ICMP, RFC 792 and RFC 4443.
const (
	echoRequest4 = 8
	echoRequest6 = 128
)

// takeEcho gives an echo request to its handler, as the stack would answer it
// for any address. It reports whether b was one, or a fragment of ICMP, which
// nobody has a use for.
func (s *Stack) takeEcho(b []byte) bool {
	var at int
	var request byte
	switch {
	case b[0]>>4 == 4 && len(b) >= ipv4Header && b[ipv4Protocol] == protocolICMP:
		at, request = 4*int(b[0]&15), echoRequest4
		if binary.BigEndian.Uint16(b[ipv4Fragment:])&0x3fff != 0 {
			s.refused.Add(1)
			return true
		}
		total := int(binary.BigEndian.Uint16(b[2:]))
		if at < ipv4Header || total < at || total > len(b) {
			return false // the stack counts it as malformed
		}
		b = b[:total]
	case b[0]>>4 == 6 && len(b) >= ipv6Header && b[ipv6NextHeader] == protocolICMPv6:
		at, request = ipv6Header, echoRequest6
		total := ipv6Header + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return false
		}
		b = b[:total]
	default:
		return false
	}
	message := b[at:]
	if len(message) < 8 || message[0] != request {
		return false
	}
	from, to := addresses(b)
	if icmpChecksum(from, to, message) != 0 {
		s.refused.Add(1)
		return true
	}
	if s.forward.Echo != nil {
		s.forward.Echo(from, to, append([]byte(nil), message...))
	}
	return true
}

// addresses reads source and destination of a packet that has a whole header.
func addresses(b []byte) (from, to netip.Addr) {
	if b[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	}
	return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
}

// icmpChecksum is what the checksum field has to be when it holds zero, and zero
// when the field is right. ICMPv6 has a pseudo-header, RFC 4443, Section 2.3.
func icmpChecksum(from, to netip.Addr, message []byte) uint16 {
	var sum uint16
	if from.Is6() {
		sum = header.PseudoHeaderChecksum(protocolICMPv6, tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice()), uint16(len(message)))
	}
	return ^checksum.Checksum(message, sum)
}

// SendUDP sends a datagram from any address, in fragments if it needs them.
// Both addresses are of one family.
func (s *Stack) SendUDP(from, to netip.AddrPort, payload []byte) error {
	return s.send(from.Addr(), to.Addr(), header.UDPProtocolNumber, header.UDPMinimumSize, payload, func(b []byte, r *stack.Route) {
		h := header.UDP(b)
		h.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: uint16(header.UDPMinimumSize + len(payload))})
		sum := r.PseudoHeaderChecksum(header.UDPProtocolNumber, h.Length())
		h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(payload, sum)))
	})
}

// SendICMP sends an ICMP message from any address; its checksum is made right.
// Both addresses are of one family.
func (s *Stack) SendICMP(from, to netip.Addr, message []byte) error {
	if len(message) < 8 {
		return errors.New("send ICMP: no header")
	}
	proto := header.ICMPv4ProtocolNumber
	if from.Is6() {
		proto = header.ICMPv6ProtocolNumber
	}
	message = append([]byte(nil), message...)
	message[2], message[3] = 0, 0
	binary.BigEndian.PutUint16(message[2:], icmpChecksum(from, to, message))
	return s.send(from, to, proto, 8, message[8:], func(b []byte, _ *stack.Route) { copy(b, message) })
}

// send sends a packet with a transport header of some size, which fill writes.
func (s *Stack) send(from, to netip.Addr, proto tcpip.TransportProtocolNumber, size int, payload []byte, fill func([]byte, *stack.Route)) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case !from.IsValid() || from.Is4() != to.Is4():
		return fmt.Errorf("send from %v to %v: not of one family", from, to)
	case len(payload) > maxPacket-ipv6Header-size:
		return fmt.Errorf("send %d bytes: larger than a packet", len(payload))
	}
	r, terr := s.stack.FindRoute(nic, tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice()), protocol(from), false)
	if terr != nil {
		return fmt.Errorf("send from %v to %v: %w", from, to, wrap(terr))
	}
	defer r.Release()
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()) + size,
		Payload:            buffer.MakeWithData(payload),
	})
	defer pb.DecRef()
	fill(pb.TransportHeader().Push(size), r)
	pb.TransportProtocolNumber = proto
	if terr := r.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: 64}, pb); terr != nil {
		return fmt.Errorf("send from %v to %v: %w", from, to, wrap(terr))
	}
	return nil
}
