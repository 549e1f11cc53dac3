package system

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/godwit-net/godwit/transports"
)

var _ transports.EarlyNetwork = (*network)(nil)

// A network on the way may swallow SYNs with data. The system sends a plain one
// after a second, and from that address none goes out with data for a while.
const (
	shunFor = 10 * time.Minute
	maxShun = 64 // addresses
)

// shunned are the addresses whose SYNs leave without data.
type shunned struct {
	mu    sync.Mutex
	until map[netip.Addr]time.Time
}

func (s *shunned) has(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.until[a])
}

func (s *shunned) add(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil || len(s.until) >= maxShun {
		s.until = make(map[netip.Addr]time.Time)
	}
	s.until[a] = time.Now().Add(shunFor)
}

// DialTCPEarly implements transports.EarlyNetwork.
func (n *network) DialTCPEarly(ctx context.Context, local netip.Addr, remote netip.AddrPort) (transports.EarlyConn, error) {
	d := net.Dialer{Control: n.setUpEarly}
	if !local.IsValid() || n.shunned.has(local) {
		d.Control = n.setUpTCP
	}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	c, err := d.DialContext(ctx, "tcp", remote.String())
	if err != nil {
		return nil, err
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, net.UnknownNetworkError("tcp")
	}
	return &earlyConn{TCPConn: t, shunned: &n.shunned}, nil
}

// An earlyConn is a connection that begins with the first Write, or an accepted
// one that began with data.
type earlyConn struct {
	*net.TCPConn
	shunned *shunned // of a dialled one
}

// Socket gives the connection for what wants to set options.
func (c *earlyConn) Socket() *net.TCPConn { return c.TCPConn }
