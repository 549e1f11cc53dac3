package machine

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
)

// Where systems keep the names of name servers.
const (
	namesPath    = "/etc/resolv.conf"
	resolvedPath = "/run/systemd/resolve/resolv.conf" // what systemd-resolved asks itself
)

// outsideServers are the name servers that the machine would ask without us,
// best first: loopback ones last, as what they ask in turn may go through the
// tunnel. state is the file of the state.
func outsideServers(state string) []netip.Addr {
	var found []netip.Addr
	for _, path := range []string{namesPath, resolvedPath} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if bytes.HasPrefix(b, []byte(namesMark)) {
			s, err := ReadState(state)
			if err != nil || s == nil || s.Names == nil {
				continue
			}
			b = s.Names.Old
		}
		found = append(found, nameServers(b)...)
	}
	var near, far []netip.Addr
	for _, a := range found {
		switch {
		case a == Far4 || a == Far6:
		case a.IsLoopback():
			near = append(near, a)
		default:
			far = append(far, a)
		}
	}
	if far = append(far, near...); len(far) == 0 {
		far = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return far
}

// OutsideResolver resolves names as the machine would without the tunnel, by
// sockets that control has marked. state is the file of the state.
func OutsideResolver(state string, control func(network, address string, c syscall.RawConn) error) *net.Resolver {
	var turn atomic.Uint32
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			servers := outsideServers(state)
			at := servers[int(turn.Add(1)-1)%len(servers)]
			d := net.Dialer{Control: control}
			return d.DialContext(ctx, network, netip.AddrPortFrom(at, portDNS).String())
		},
	}
}
