package tunnel

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// How long a connection waits for a peer that does not answer. An outage of
// the network must not end what runs over it, be it idle or busy, so the usual
// 15 minutes become about a day; a peer that is gone for good is noticed by
// the layers below, which close the Stack or the connection.
const (
	// maxRTO caps the retransmission timeout. "A maximum value MAY be placed on
	// RTO provided it is at least 60 seconds." RFC 6298, Section 2.5
	maxRTO = 60 * time.Second
	// maxRetries is how often one segment, or a window probe, is sent again: at
	// maxRTO apart it makes a day.
	maxRetries = 24 * 60

	// Keepalives find a peer that forgot an idle connection. They are rare, as
	// each one wakes a sleeping radio, and give up after about a day too.
	keepaliveIdle     = 30 * time.Minute
	keepaliveInterval = 15 * time.Minute
	keepaliveCount    = 96
)

// Buffers, in bytes. gVisor offers half of a receive buffer as the window. In a
// move nothing is acknowledged for a round trip, so twice what the path holds is
// under way: 8 MiB are that for 30 Mbit/s and a second, or 300 and 100 ms.
const (
	bufferMin     = 4 << 10
	bufferDefault = 1 << 20
	bufferMax     = 16 << 20
	udpSendBuffer = 1 << 30 // no bound
)

// ICMP errors a second; RFC 4443, Section 2.4(f) and RFC 1812, Section 4.3.2.8
// ask for a limit. Echo replies and resets are one for one and need none.
const (
	icmpLimit = rate.Limit(100)
	icmpBurst = 50
)

// Congestion control of connections whose losses are mended below, and of
// others. Without losses Reno's window grows until the path is full, where
// gVisor's CUBIC leaves slow start early (HyStart) and then creeps; with 0.1 %
// at 50 ms CUBIC moved three times as much.
const (
	mendedControl = "reno"
	lossyControl  = "cubic"
)

// mendedRTO is the shortest retransmission timeout of connections whose losses
// are mended below. RFC 6298, Section 2.4, asks for a second at least; RFC 1122,
// Section 4.2.3.1, began with three. What is mended comes a few round trips late:
// where UDP falls silent at a round trip of 500 ms, the first acknowledgement by TCP
// is there after 2.5 s. gVisor's 200 ms would be over long before, and cost the window.
const mendedRTO = 3 * time.Second

// mendedSegments is the MTU that the TCP of such connections goes by, in bytes; what
// leaves is cut to what the path takes. gVisor begins with ten segments under way and
// doubles them with each round trip, which at 1,300 bytes each takes six round trips
// until 100 Mbit/s are under way at 50 ms. How much leaves is the business of the link
// below, which knows the path already or finds it out faster.
const mendedSegments = 8 << 10

// segments is the MTU for TCP; 0: the stack's. Without offload the stack would cut
// segments into fragments.
func (c *Config) segments() uint32 {
	if c.Mended && !c.NoOffload {
		return mendedSegments
	}
	return 0
}

// control is the name of the stack's congestion control.
func (c *Config) control() tcpip.CongestionControlOption {
	if c.Mended {
		return mendedControl
	}
	return lossyControl
}

// configure sets what holds for all of the stack's connections.
func configure(s *stack.Stack, c *Config) error {
	sack := tcpip.TCPSACKEnabled(true)
	// RACK stays off: after an outage gVisor's counts the lost flight as still
	// under way and creeps from timeout to timeout. At a round trip of 50 ms
	// 6 MB took 13 minutes, against half a second with SACK (RFC 6675) alone,
	// and random loss of 0.1 to 3 % cost the same with either.
	recovery := tcpip.TCPRecovery(0)
	delay := tcpip.TCPDelayEnabled(false) // TCP_NODELAY: the applications' own TCP has batched already
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	control := c.control()
	rto := tcpip.TCPMaxRTOOption(maxRTO)
	minRTO := tcpip.TCPMinRTOOption(tcp.MinRTO)
	if c.Mended {
		minRTO = tcpip.TCPMinRTOOption(mendedRTO)
	}
	retries := tcpip.TCPMaxRetriesOption(maxRetries)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &recovery, &delay, &moderate, &control, &rto, &minRTO, &retries,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax},
		&tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax},
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set %T: %s", o, err)
		}
	}
	// Of UDP's sockets. No window slows their peers down, so what comes in a burst has
	// to wait here. What is sent counts until the packet is released, and the link
	// keeps packets for a replay: a socket would stand still until they are let go.
	// What bounds them is the queue, which drops, and the link.
	for _, o := range []any{
		tcpip.ReceiveBufferSizeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax},
		tcpip.SendBufferSizeOption{Min: bufferMin, Default: udpSendBuffer, Max: udpSendBuffer},
	} {
		if err := s.SetOption(o); err != nil {
			return fmt.Errorf("set %T: %s", o, err)
		}
	}
	s.SetICMPLimit(icmpLimit)
	s.SetICMPBurst(icmpBurst)
	return nil
}

// configureEndpoint sets what is the matter of each connection. It is for
// connections that are established: earlier, gVisor would not start the timer.
func configureEndpoint(ep tcpip.Endpoint) {
	idle, interval := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveInterval)
	// These cannot fail for a TCP endpoint.
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	ep.SocketOptions().SetKeepAlive(true)
}
