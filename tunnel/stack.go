// Package tunnel is a TCP/IP stack in user space: connections on one side,
// whole IP packets on the other.
//
// It wraps gVisor's netstack and shows nothing of it. A Stack has addresses but
// no neighbours: every packet leaves through Config.Output, and what arrives
// comes in through Stack.Input. TCP hands over whole segments of up to 64 KiB,
// because the stack's cost is per packet; Cut makes MTU-sized packets of them
// where they leave for the network, and the receiving stack takes either size.
//
// Connections outlive an outage: nothing here gives up on a connection because
// of time alone within the first hours (see the constants in options.go).
//
// # Limitations
//
// No forwarding, no multicast, no IPv6 extension headers in what is sent, no
// path MTU discovery: the MTU is what Config says.
package tunnel

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
)

// A Config makes a Stack.
type Config struct {
	// Addresses are the stack's own, IPv4 and IPv6, at least one. More may
	// come and go later.
	Addresses []netip.Addr

	// MTU is the largest IP packet in bytes that the way between the two
	// stacks carries; TCP's MSS follows from it. At least 1280 with an IPv6
	// address (RFC 8200, Section 5), otherwise 576; at most 65,535.
	MTU int

	// Output takes each packet that leaves, with its reference: Output must
	// see to its Release. It runs on the stack's goroutines while locks are
	// held. It must not block and must not call into this Stack or, directly,
	// another Stack's Input. It may be called from several goroutines; packets
	// of one connection come in order.
	Output func(Packet)

	Logger *slog.Logger // nil discards
}

// A Stack is one end's TCP/IP. Its methods may be called from several
// goroutines.
type Stack struct {
	_ struct{}
}

// New makes a Stack, ready for use.
func New(c Config) (*Stack, error) { return &Stack{}, nil }

// Close resets all connections, closes listeners and ends the stack's
// goroutines; it waits for them. Output is not called after it returned.
func (s *Stack) Close() {}

// Input hands whole IP packets to the stack, up to 65,535 bytes each and of
// any size above or below the MTU. It copies them. Malformed packets and those
// for other addresses are dropped and counted.
func (s *Stack) Input(pkts [][]byte) {}

// AddAddress adds an address of the stack's own.
func (s *Stack) AddAddress(a netip.Addr) error { return nil }

// RemoveAddress removes an address. Connections from it stay but can no longer
// receive.
func (s *Stack) RemoveAddress(a netip.Addr) error { return nil }

// DialTCP connects to remote. The connection has CloseWrite and CloseRead as
// *net.TCPConn has. Cancelling ctx ends the attempt, not the connection;
// without a deadline the attempt lasts hours, as an outage may.
func (s *Stack) DialTCP(ctx context.Context, remote netip.AddrPort) (net.Conn, error) {
	return nil, net.ErrClosed
}

// ListenTCP listens on local; an unspecified address means all of the stack's
// of that family, port 0 a free one. The connections that Accept gives are as
// those of DialTCP.
func (s *Stack) ListenTCP(local netip.AddrPort) (net.Listener, error) {
	return nil, net.ErrClosed
}

// DialUDP gives a UDP socket connected to remote.
func (s *Stack) DialUDP(remote netip.AddrPort) (net.Conn, error) {
	return nil, net.ErrClosed
}

// ListenUDP gives an unconnected UDP socket bound to local.
func (s *Stack) ListenUDP(local netip.AddrPort) (net.PacketConn, error) {
	return nil, net.ErrClosed
}
