package system

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"

	"github.com/godwit-net/godwit/transports"
)

var _ transports.RawNetwork = (*network)(nil)

// protocolESP is ESP's number in IP headers, as package net writes it.
const protocolESP = ":50"

// DialESP implements transports.RawNetwork.
func (n *network) DialESP(ctx context.Context, local, remote netip.Addr) (net.Conn, error) {
	d := net.Dialer{Control: n.setUp}
	if local.IsValid() {
		d.LocalAddr = &net.IPAddr{IP: local.AsSlice(), Zone: local.Zone()}
	}
	c, err := d.DialContext(ctx, rawNetwork(remote), remote.String())
	if err != nil {
		return nil, err
	}
	return newRaw(c)
}

// ListenESP implements transports.RawNetwork.
func (n *network) ListenESP(ctx context.Context, local netip.Addr) (transports.PacketConn, error) {
	lc := net.ListenConfig{Control: n.setUp}
	c, err := lc.ListenPacket(ctx, rawNetwork(local), local.String())
	if err != nil {
		return nil, err
	}
	return newRaw(c)
}

func rawNetwork(a netip.Addr) string {
	if a.Is4() {
		return "ip4" + protocolESP
	}
	return "ip6" + protocolESP
}

// raw is a raw socket whose addresses have ports, all zero.
type raw struct {
	*net.IPConn
	batch *ipv4.PacketConn // of either family: only its writing is used
	peer  net.Addr         // of a connected one; nil
}

func newRaw(c any) (*raw, error) {
	ip, ok := c.(*net.IPConn)
	if !ok {
		return nil, fmt.Errorf("not a raw socket: %T", c)
	}
	tuneRaw(ip)
	return &raw{IPConn: ip, batch: ipv4.NewPacketConn(ip), peer: ip.RemoteAddr()}, nil
}

func noPort(a net.Addr) netip.AddrPort {
	ip, ok := a.(*net.IPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	addr, _ := netip.AddrFromSlice(ip.IP)
	return netip.AddrPortFrom(addr.Unmap().WithZone(ip.Zone), 0)
}

// LocalAddr gives a *net.UDPAddr, which has a port.
func (r *raw) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(noPort(r.IPConn.LocalAddr())) }

// RemoteAddr is like LocalAddr.
func (r *raw) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(noPort(r.peer)) }

// Read gives one packet without its IP header.
func (r *raw) Read(b []byte) (int, error) {
	n, _, err := r.IPConn.ReadFromIP(b) // takes the header of IPv4 away, which Read does not
	return n, err
}

// ReadFromUDPAddrPort implements transports.PacketConn.
func (r *raw) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := r.IPConn.ReadFromIP(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, noPort(from), nil
}

// WriteToUDPAddrPort implements transports.PacketConn.
func (r *raw) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return r.IPConn.WriteToIP(b, ipAddr(to))
}

func ipAddr(to netip.AddrPort) *net.IPAddr {
	return &net.IPAddr{IP: to.Addr().AsSlice(), Zone: to.Addr().Zone()}
}

// WriteRun writes packets that lie one behind the other, of segment bytes but
// for the last, in as few calls as the system allows. to is zero on a connected socket.
func (r *raw) WriteRun(b []byte, segment int, to netip.AddrPort) error {
	if segment <= 0 || len(b) <= segment {
		if r.peer != nil {
			_, err := r.IPConn.Write(b)
			return err
		}
		_, err := r.WriteToUDPAddrPort(b, to)
		return err
	}
	var addr net.Addr
	if r.peer == nil {
		addr = ipAddr(to)
	}
	ms := make([]ipv4.Message, 0, (len(b)+segment-1)/segment)
	for len(b) > 0 {
		n := min(segment, len(b))
		ms = append(ms, ipv4.Message{Buffers: [][]byte{b[:n]}, Addr: addr})
		b = b[n:]
	}
	for len(ms) > 0 {
		n, err := r.batch.WriteBatch(ms, 0)
		if err != nil {
			return err
		}
		ms = ms[max(n, 1):]
	}
	return nil
}
