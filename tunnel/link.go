package tunnel

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A link is the stack's only interface: no link header, no neighbours.
type link struct {
	mtu        uint32
	output     func(Packet)
	network    func(tcpip.NetworkProtocolNumber) stack.NetworkEndpoint // nil without one
	dispatcher atomic.Pointer[stack.NetworkDispatcher]

	// mu is held for reading while packets go out, so that shut sees the last.
	mu     sync.RWMutex
	closed bool

	noOffload bool
	verify    bool // checksums of what comes in
	windows   windows
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// SupportedGSO lets TCP hand over whole segments with the checksum left open,
// as it would to a Linux host.
func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.noOffload {
		return stack.GSONotSupported
	}
	return stack.HostGSOSupported
}

// wholeSegment is the payload of the largest segment, in bytes: 45 pieces at
// the MTU of 1,380 that the product uses, with IPv6 and timestamps. Sealed they
// just fit the 65,000 bytes that leave in one call with UDP_SEGMENT and arrive
// in one with UDP_GRO; a few bytes more would cost a second one of each.
const wholeSegment = 45 * (InnerMTU - ipv6Header - tcpHeader - 12)

// GSOMaxSize is the size from which gVisor derives that payload: it takes off
// room for headers of all layers, and a byte.
func (*link) GSOMaxSize() uint32 { return wholeSegment + header.TCPTotalHeaderMaximumSize + 1 }

// WritePackets runs on the goroutines of connections and timers, while their
// locks are held.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	ps := pkts.AsSlice()
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return 0, &tcpip.ErrClosedForSend{}
	}
	own := 0
	if l.mtu < InnerMTU {
		own = int(l.mtu)
	}
	for _, pb := range ps {
		l.windows.out(pb)
		sent(pb)
		l.output(Packet{pb: pb.IncRef(), mtu: own})
	}
	return len(ps), nil
}

// shut stops output; a timer may still run after the stack has gone.
func (l *link) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (l *link) deliver(proto tcpip.NetworkProtocolNumber, pb *stack.PacketBuffer) {
	if fragment(pb) {
		if e := l.network(proto); e != nil {
			// As the dispatcher would, but for its note that checksums need no look.
			e.HandlePacket(pb)
		}
		return
	}
	if d := l.dispatcher.Load(); d != nil {
		(*d).DeliverNetworkPacket(proto, pb)
	}
}

// fragment tells whether pb is a part of a datagram. The checksum of the whole is
// to be verified by whoever puts it together: pieces of two datagrams with the same
// Identification, of which there are 65,535, may meet (RFC 4963).
func fragment(pb *stack.PacketBuffer) bool {
	b, ok := pb.Data().PullUp(ipv4Header)
	switch {
	case !ok:
		return false
	case b[0]>>4 == 4:
		return binary.BigEndian.Uint16(b[ipv4Fragment:])&0x3fff != 0
	}
	return b[ipv6NextHeader] == byte(header.IPv6FragmentHeader)
}

func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// Capabilities says that checksums need no look: what comes in has been inside
// an authentic ESP packet since the peer made it, and the ICV is a better
// guard than any of them. They would cost a pass over all data, and those of a
// coalesced segment would have to be made before they could be verified. It is
// otherwise where the peer did not make the packets but forwards them, and with
// fragments.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	if l.verify {
		return 0
	}
	return stack.CapabilityRXChecksumOffload
}

func (l *link) IsAttached() bool                      { return l.dispatcher.Load() != nil }
func (l *link) MTU() uint32                           { return l.mtu }
func (*link) SetMTU(uint32)                           {}
func (*link) MaxHeaderLength() uint16                 { return 0 }
func (*link) LinkAddress() tcpip.LinkAddress          { return "" }
func (*link) SetLinkAddress(tcpip.LinkAddress)        {}
func (*link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (*link) AddHeader(*stack.PacketBuffer)           {}
func (*link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (*link) Wait()                                   {}
func (*link) Close()                                  {}
func (*link) SetOnCloseAction(func())                 {}
