package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/godwit-net/godwit/transports"
)

// A Host is a machine with interfaces that come and go. It is a
// transports.Network: its sockets work like the system's, errors included.
type Host struct {
	in   *Internet
	name string

	// Guarded by in.mu.
	ifaces  []*iface // the first that fits is used for new sockets
	changes []chan struct{}
	udp     map[uint16][]*udpSocket
	tcp     map[tuple]*tcpConn
	listen  map[netip.AddrPort]*tcpListener
	port    uint16 // the last ephemeral port given out
}

var _ transports.Network = (*Host)(nil)

type iface struct {
	host    *Host
	name    string
	network *Network
	addrs   []netip.Addr
}

// AddHost adds a host that is attached to nothing yet. It panics if the name is
// taken.
func (in *Internet) AddHost(name string) *Host {
	in.lock()
	defer in.mu.Unlock()
	if in.hosts[name] != nil {
		panic(fmt.Sprintf("lab: there is a host %q already", name))
	}
	h := &Host{
		in: in, name: name,
		udp:    make(map[uint16][]*udpSocket),
		tcp:    make(map[tuple]*tcpConn),
		listen: make(map[netip.AddrPort]*tcpListener),
		port:   firstEphemeral - 1,
	}
	in.hosts[name] = h
	return h
}

// Name is the name that the host was added under.
func (h *Host) Name() string { return h.name }

// Attach plugs an interface into a network and returns its addresses: those
// asked for, or else one of each of the network's prefixes. New sockets prefer
// the interfaces in the order in which they were attached; see Prefer. It panics
// if the interface is attached already or an address is taken.
func (h *Host) Attach(iface string, n *Network, addrs ...netip.Addr) []netip.Addr {
	h.in.lock()
	defer h.in.mu.Unlock()
	defer h.changed()
	return h.attach(len(h.ifaces), iface, n, addrs)
}

func (h *Host) attach(at int, name string, n *Network, addrs []netip.Addr) []netip.Addr {
	if h.iface(name) >= 0 {
		panic(fmt.Sprintf("lab: %s of %s is attached already", name, h.name))
	}
	if len(addrs) == 0 {
		for _, p := range n.prefixes {
			addrs = append(addrs, n.free(p))
		}
	}
	i := &iface{host: h, name: name, network: n, addrs: slices.Clone(addrs)}
	for _, a := range addrs {
		if n.taken(a, nil) {
			panic(fmt.Sprintf("lab: %v is taken in %s", a, n.name))
		}
		n.local[a] = i
	}
	h.ifaces = slices.Insert(h.ifaces, at, i)
	return slices.Clone(addrs)
}

// Detach unplugs an interface: its addresses are gone at once. Packets to them
// are lost, also those under way. Sockets bound to them stay: UDP sends fail
// with EADDRNOTAVAIL, or with ENETUNREACH when the host has no other address of
// that IP version; TCP goes on as it would towards a silent peer. It panics if
// there is no such interface.
func (h *Host) Detach(iface string) {
	h.in.lock()
	defer h.in.mu.Unlock()
	defer h.changed()
	h.detach(iface)
}

func (h *Host) detach(name string) (at int) {
	at = h.mustIface(name)
	i := h.ifaces[at]
	for _, a := range i.addrs {
		delete(i.network.local, a)
	}
	h.ifaces = slices.Delete(h.ifaces, at, at+1)
	return at
}

// Move is Detach and Attach at one instant: the interface keeps its place, and
// one change is told.
func (h *Host) Move(iface string, n *Network, addrs ...netip.Addr) []netip.Addr {
	h.in.lock()
	defer h.in.mu.Unlock()
	defer h.changed()
	return h.attach(h.detach(iface), iface, n, addrs)
}

// Prefer has new sockets use an interface before all others. It panics if there
// is no such interface.
func (h *Host) Prefer(iface string) {
	h.in.lock()
	defer h.in.mu.Unlock()
	defer h.changed()
	at := h.mustIface(iface)
	i := h.ifaces[at]
	h.ifaces = slices.Insert(slices.Delete(h.ifaces, at, at+1), 0, i)
}

// iface is where h.ifaces has the interface called name, or -1.
func (h *Host) iface(name string) int {
	return slices.IndexFunc(h.ifaces, func(i *iface) bool { return i.name == name })
}

func (h *Host) mustIface(name string) int {
	at := h.iface(name)
	if at < 0 {
		panic(fmt.Sprintf("lab: %s of %s is not attached", name, h.name))
	}
	return at
}

// Changes gives a channel that receives after the host's addresses or its
// preference have changed. Changes that nobody has received yet are one. Each
// call gives a channel of its own.
func (h *Host) Changes() <-chan struct{} {
	h.in.lock()
	defer h.in.mu.Unlock()
	c := make(chan struct{}, 1)
	h.changes = append(h.changes, c)
	return c
}

func (h *Host) changed() {
	for _, c := range h.changes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Addresses are the host's addresses by now, in order of preference.
func (h *Host) Addresses() []netip.Addr {
	h.in.lock()
	defer h.in.mu.Unlock()
	var as []netip.Addr
	for _, i := range h.ifaces {
		as = append(as, i.addrs...)
	}
	return as
}

// LocalAddress is the address that a new socket towards remote would have. The
// error matches syscall.ENETUNREACH.
func (h *Host) LocalAddress(remote netip.Addr) (netip.Addr, error) {
	h.in.lock()
	defer h.in.mu.Unlock()
	return h.localAddress(remote.Unmap())
}

func (h *Host) localAddress(remote netip.Addr) (netip.Addr, error) {
	if h.owner(remote) != nil {
		return remote, nil
	}
	var first netip.Addr
	for _, i := range h.ifaces {
		for _, a := range i.addrs {
			if a.Is4() != remote.Is4() {
				continue
			}
			// A neighbour is reached from its own network.
			if i.network.local[remote] != nil {
				return a, nil
			}
			if !first.IsValid() {
				first = a
			}
		}
	}
	if !first.IsValid() {
		return netip.Addr{}, syscall.ENETUNREACH
	}
	return first, nil
}

// owner is the interface that has address a, or nil.
func (h *Host) owner(a netip.Addr) *iface {
	for _, i := range h.ifaces {
		if slices.Contains(i.addrs, a) {
			return i
		}
	}
	return nil
}

// source says why packets cannot leave from address a, if so.
func (h *Host) source(a netip.Addr) (*iface, error) {
	if i := h.owner(a); i != nil {
		return i, nil
	}
	for _, i := range h.ifaces {
		for _, b := range i.addrs {
			if a.Is4() == b.Is4() {
				return nil, syscall.EADDRNOTAVAIL
			}
		}
	}
	return nil, syscall.ENETUNREACH
}

// send takes p from one of h's sockets. The caller flushes.
func (h *Host) send(p *packet) error {
	h.in.packetID++
	p.id = h.in.packetID
	h.in.trace(p, h.name, Sent, "")
	i, err := h.source(p.src.Addr())
	if err != nil {
		h.in.drop(p, h.name, BySource)
		return err
	}
	if h.owner(p.dst.Addr()) != nil {
		h.in.at(h.in.Now(), func() { h.receive(p) }) // to itself
		return nil
	}
	if p.proto == UDP && p.size() > i.network.mtu() {
		h.in.drop(p, h.name, ByMTU)
		return syscall.EMSGSIZE
	}
	i.network.enter(p)
	return nil
}

// receive takes p from a network.
func (h *Host) receive(p *packet) {
	switch p.proto {
	case UDP:
		h.receiveUDP(p)
	case TCP:
		h.receiveTCP(p)
	}
}

// free is the first unused address of p, from the second on: the first is the
// router's.
func (n *Network) free(p netip.Prefix) netip.Addr {
	for a := p.Addr().Next().Next(); p.Contains(a); a = a.Next() {
		if !n.taken(a, nil) {
			return a
		}
	}
	panic(fmt.Sprintf("lab: %s has no address left in %v", n.name, p))
}

// Ports that are given out to sockets that ask for none, RFC 6335, Section 6.
const (
	firstEphemeral = 49152
	lastEphemeral  = 65535
)

var errNoPort = errors.New("no free port")

// ephemeral gives a port for which used reports false.
func (h *Host) ephemeral(used func(uint16) bool) (uint16, error) {
	for range lastEphemeral - firstEphemeral + 1 {
		if h.port == lastEphemeral {
			h.port = firstEphemeral - 1
		}
		h.port++
		if !used(h.port) {
			return h.port, nil
		}
	}
	return 0, errNoPort
}

// DialUDP implements transports.Network. A read or write after a datagram that
// nobody listened for fails with ECONNREFUSED, once.
func (h *Host) DialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	s, err := h.dialUDP(ctx, local, remote)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// ListenUDP implements transports.Network. The zero and the unspecified address
// stand for all addresses of the host, present and future. The conn is a
// net.PacketConn, too.
func (h *Host) ListenUDP(ctx context.Context, local netip.AddrPort) (transports.PacketConn, error) {
	s, err := h.listenUDP(ctx, local)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// DialTCP implements transports.Network. It takes exactly one round trip. The
// connection has CloseWrite and SetLinger as a *net.TCPConn has.
func (h *Host) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := h.dialTCP(ctx, local, remote)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ListenTCP implements transports.Network. The zero and the unspecified address
// stand for all addresses of the host.
func (h *Host) ListenTCP(ctx context.Context, local netip.AddrPort) (net.Listener, error) {
	l, err := h.listenTCP(ctx, local)
	if err != nil {
		return nil, err
	}
	return l, nil
}
