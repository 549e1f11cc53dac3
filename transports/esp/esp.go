// Package esp carries bare ESP packets, as IP protocol 50 (RFC 4303), over raw
// sockets. Both ends need the right to open them; on Linux that is CAP_NET_RAW.
//
// The socket is all that differs from ESP in UDP: the carriers are those of
// package udp, without ports.
//
// IKE has no place in bare ESP: RFC 7296 puts it in UDP beside it. As there may be no
// UDP here, an IKE message follows the four zero bytes that tell it from ESP in UDP
// (RFC 3948, Section 2.2). An SPI of zero is free for local use (RFC 4303, Section
// 2.1), and only another godwit is sent it.
//
// # Limitations
//
// A raw socket hears all ESP between two addresses. Clients of one server on one
// host hear each other's packets and drop those whose SPI is not theirs. A host
// whose kernel has IPsec of its own processes the packets, too.
//
// A server that listens on an unspecified address does not know which of its
// addresses a packet came to, and the system chooses the one that it answers from.
package esp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/udp"
)

// Errors that callers test for.
var (
	// ErrUnsupported tells that the network has no sockets of IP protocol 50.
	ErrUnsupported = errors.New("there are no raw sockets here")
	// ErrRight tells that the system has them, but not for this process.
	ErrRight = errors.New("raw sockets need the right to them: CAP_NET_RAW or root")
)

// New gives the client's transport. Dial ignores the remote port.
func New() transports.Transport { return transport{udp.New(udp.Options{Bare: true})} }

type transport struct{ transports.Transport }

// Dial opens a raw socket and sends the first packets; it waits for nothing. Its
// error matches ErrUnsupported or ErrRight where that is why.
func (t transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	raw, ok := o.Network.(transports.RawNetwork)
	if !ok {
		return nil, fmt.Errorf("dial %s over esp: %w", o.Remote.Addr(), ErrUnsupported)
	}
	o.Network = bare{raw}
	return t.Transport.Dial(ctx, o)
}

// Listen opens the server's raw socket for the packets to local; the unspecified
// address of a family stands for all of that family. Errors are as with Dial.
func Listen(n transports.Network, local netip.Addr, h transports.Handler) (transports.Listener, error) {
	raw, ok := n.(transports.RawNetwork)
	if !ok {
		return nil, fmt.Errorf("listen on %s over esp: %w", local, ErrUnsupported)
	}
	return udp.Options{Bare: true}.Listen(bare{raw}, netip.AddrPortFrom(local, 0), h)
}

// bare gives raw sockets to who asks for UDP.
type bare struct{ transports.RawNetwork }

func (n bare) DialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := n.DialESP(ctx, local, remote.Addr())
	return c, explain(err)
}

func (n bare) ListenUDP(ctx context.Context, local netip.AddrPort) (transports.PacketConn, error) {
	c, err := n.ListenESP(ctx, local.Addr())
	return c, explain(err)
}

func explain(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrRight, err)
	}
	return err
}
