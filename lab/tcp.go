package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

type tuple struct{ local, remote netip.AddrPort }
type tcpConn struct{}
type tcpListener struct{}

func (h *Host) receiveTCP(p *packet) {}

func (h *Host) dialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func (h *Host) listenTCP(ctx context.Context, local netip.AddrPort) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}
