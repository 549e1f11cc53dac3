package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/godwit-net/godwit/tunnel/portmsg"
)

// Inside is this end's place inside the tunnel, for what the server brings to
// it. When the server assigns other addresses, its sockets are closed.
type Inside struct{ in *inner }

// Inside gives the inside of the link; before the link is up it waits for it
// until ctx ends. A gateway that is not godwit gives an error that matches
// errors.ErrUnsupported.
func (c *Client) Inside(ctx context.Context) (*Inside, error) {
	in, err := c.await(ctx)
	if err != nil {
		return nil, err
	}
	if in.resolver != nil {
		return nil, fmt.Errorf("the gateway is not godwit: %w", errors.ErrUnsupported)
	}
	return &Inside{in}, nil
}

// Control connects to the server's service for ports. The server goes by the
// inner address that it comes from.
func (i *Inside) Control(ctx context.Context) (net.Conn, error) {
	return i.in.stack.DialTCP(ctx, netip.AddrPortFrom(i.in.gateway, portmsg.ServicePort))
}

// local is the inner address that Control comes from: they are of one family.
func (i *Inside) local() netip.AddrPort { return netip.AddrPortFrom(i.in.addresses[0], 0) }

// ListenTCP listens at a free port of this end's inner address, where only the
// server can connect.
func (i *Inside) ListenTCP() (net.Listener, error) { return i.in.stack.ListenTCP(i.local()) }

// ListenUDP is ListenTCP for datagrams.
func (i *Inside) ListenUDP() (net.PacketConn, error) { return i.in.stack.ListenUDP(i.local()) }
