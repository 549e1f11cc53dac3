// Package netwatch tells that the host's attachment to the network may have
// changed: an address, a route, a link or a neighbour came or went, or the host
// slept. It only says that something happened, as soon as the system says so;
// whoever cares compares what AttachmentTo says now with what it said before.
//
// # Limitations
//
// Only Linux tells at once. Elsewhere, and on a Linux that refuses netlink
// sockets, the host is looked at every two seconds: addresses and the source
// address towards the default route. A change of routes that alters neither
// goes unnoticed there.
package netwatch

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Reasons of events.
const (
	ReasonAddress  = "address"
	ReasonRoute    = "route"
	ReasonLink     = "link"
	ReasonOverflow = "overflow" // the system dropped some news
	ReasonPoll     = "poll"     // a look at the host found a difference
	// ReasonNeighbour: a router or other neighbour was found, lost or replaced.
	ReasonNeighbour = "neighbour"
	ReasonResume    = "resume" // the host slept
)

// An Event says that something changed. Several changes that nobody has read
// yet are one event with the reason of the first.
type Event struct{ Reason string }

// A Watcher watches the network namespace of the thread that New ran on.
type Watcher struct {
	events chan Event
	stop   func() error // makes the goroutine end
	once   sync.Once
	done   sync.WaitGroup
	err    error
}

// New starts watching. A nil logger discards. The error is the system's, when
// it gives no way to watch.
func New(logger *slog.Logger) (*Watcher, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return open(logger)
}

// start runs f until stop makes it return.
func start(f func(w *Watcher), stop func() error) *Watcher {
	w := &Watcher{events: make(chan Event, 1), stop: stop}
	w.done.Go(func() {
		defer close(w.events)
		f(w)
	})
	return w
}

// Events gives the channel of events. It is closed when the Watcher is, or
// when the system takes the means of watching away.
func (w *Watcher) Events() <-chan Event { return w.events }

// Close ends the Watcher and waits for its goroutine.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		w.err = w.stop()
		w.done.Wait()
	})
	return w.err
}

// tell never blocks: an event that is still unread says all there is to say.
func (w *Watcher) tell(reason string) {
	select {
	case w.events <- Event{Reason: reason}:
	default:
	}
}

// pollInterval is how often a host is looked at that does not tell.
const pollInterval = 2 * time.Second

// poll compares what look gives from time to time.
func poll(interval time.Duration, look func() string) *Watcher {
	stop := make(chan struct{})
	return start(func(w *Watcher) {
		t := time.NewTicker(interval)
		defer t.Stop()
		last := look()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
			}
			if now := look(); now != last {
				last = now
				w.tell(ReasonPoll)
			}
		}
	}, func() error {
		close(stop)
		return nil
	})
}

// look sums up what matters of the host's attachment.
func look() string {
	addrs, err := Snapshot()
	// Nothing is sent; the addresses of RFC 5737 and RFC 3849 stand for any
	// that only the default route leads to.
	v4, err4 := LocalAddress(netip.AddrFrom4([4]byte{198, 51, 100, 1}))
	v6, err6 := LocalAddress(netip.MustParseAddr("2001:db8::1"))
	return fmt.Sprint(addrs, v4, v6, err == nil, err4 == nil, err6 == nil)
}

// LocalAddress gives the source address that the system would use for packets
// to remote now. It sends nothing. The error is the system's, such as that
// there is no route.
func LocalAddress(remote netip.Addr) (netip.Addr, error) { return Mark(0).LocalAddress(remote) }

// LocalAddress is LocalAddress for packets with the mark.
func (m Mark) LocalAddress(remote netip.Addr) (netip.Addr, error) {
	if !remote.IsValid() {
		return netip.Addr{}, fmt.Errorf("source address: %w", net.InvalidAddrError("no remote address"))
	}
	// Connecting a UDP socket makes the system choose; the port is of no
	// importance, but zero is refused by some.
	d := net.Dialer{Control: m.Control}
	c, err := d.DialContext(context.Background(), "udp", netip.AddrPortFrom(remote.Unmap(), 9).String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("source address towards %v: %w", remote, err)
	}
	defer c.Close()
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if local.IsUnspecified() {
		return netip.Addr{}, fmt.Errorf("source address towards %v: %w", remote, net.InvalidAddrError("none"))
	}
	return local, nil
}

// HasAddress tells whether packets can leave this host from a. Where the system
// does not say it is taken to be so.
func HasAddress(a netip.Addr) bool {
	ps, err := Snapshot()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Addr() == a })
}

// Snapshot lists the host's addresses that packets can leave from, sorted:
// those of interfaces that are up, without loopback and link-local ones.
func Snapshot() ([]netip.Prefix, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	var ps []netip.Prefix
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			addr, ok := netip.AddrFromSlice(n.IP)
			if addr = addr.Unmap(); !ok || addr.IsLinkLocalUnicast() || addr.IsLoopback() {
				continue
			}
			ones, _ := n.Mask.Size()
			ps = append(ps, netip.PrefixFrom(addr, ones))
		}
	}
	slices.SortFunc(ps, netip.Prefix.Compare)
	return ps, nil
}
