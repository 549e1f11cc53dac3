package machine

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Where systems keep the names of name servers.
const (
	namesPath    = "/etc/resolv.conf"
	resolvedPath = "/run/systemd/resolve/resolv.conf" // what systemd-resolved asks itself
)

// outsideServers are the name servers that the machine would ask without us,
// best first: loopback ones last, as what they ask in turn may go through the
// tunnel.
func outsideServers() []netip.Addr {
	var found []netip.Addr
	for _, path := range []string{namesPath, resolvedPath} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if state := keptIn(b); state != "" {
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

// An outside keeps what outsideServers gives, until the files change: a machine
// may be told of other name servers at any time.
type outside struct {
	mu    sync.Mutex
	seen  [2]fileStamp
	known []netip.Addr
}

// A fileStamp changes when a file does.
type fileStamp struct {
	at   time.Time
	size int64
}

func (o *outside) servers() []netip.Addr {
	var now [2]fileStamp
	for i, path := range []string{namesPath, resolvedPath} {
		if info, err := os.Stat(path); err == nil {
			now[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil || o.seen != now {
		o.known, o.seen = outsideServers(), now
	}
	return o.known
}

// OutsideResolver resolves names as the machine would without the tunnel, by
// sockets that control has marked.
func OutsideResolver(control func(network, address string, c syscall.RawConn) error) *net.Resolver {
	var turn atomic.Uint32
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			servers := outsideServers()
			at := servers[int(turn.Add(1)-1)%len(servers)]
			d := net.Dialer{Control: control}
			return d.DialContext(ctx, network, netip.AddrPortFrom(at, portDNS).String())
		},
	}
}
