package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/tunnel/relay"
)

const (
	// What one client that routes its packets here, and all together, may hold.
	maxFlowsOfOne = 512
	maxFlows      = 16384
	dnsPort       = 53
)

// A Router lets packets of clients out that address their targets themselves,
// as those do that are not godwit: connections, datagrams and pings leave by
// ordinary sockets of this host. A client's address and port get one socket,
// whatever the target is (RFC 4787, Section 4.1), and in comes what is from
// addresses that were sent to. When a client has too many, the one that was idle
// longest makes room.
//
// Its methods may be called from several goroutines.
type Router struct {
	Policy Policy
	// Gateways are this end's own inner addresses: they answer pings, and
	// questions to their port 53 go to Resolver, which the policy does not
	// concern.
	Gateways []netip.Addr
	Resolver netip.AddrPort
	// SendUDP and SendICMP send to clients, from any address. Both are required.
	SendUDP  func(from, to netip.AddrPort, payload []byte) error
	SendICMP func(from, to netip.Addr, message []byte) error
	// Dial connects to an address that has been checked; the system's sockets
	// by default.
	Dial   func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	Logger *slog.Logger // nil discards

	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	streams map[netip.Addr]int // connections, by client
	total   int
	flows   map[flowKey]*flow
	of      map[netip.Addr]int // flows, by client
}

// A flowKey is what has one socket: a client's UDP port, or the identifier of its
// pings to one family.
type flowKey struct {
	client netip.AddrPort
	v6     bool
	ping   bool
}

func (r *Router) init() {
	r.once.Do(func() {
		if r.Logger == nil {
			r.Logger = slog.New(slog.DiscardHandler)
		}
		if r.Dial == nil {
			r.Dial = system
		}
		r.ctx, r.cancel = context.WithCancel(context.Background())
		r.streams, r.of = make(map[netip.Addr]int), make(map[netip.Addr]int)
		r.flows = make(map[flowKey]*flow)
	})
}

// Close ends everything and waits for it. What comes later is dropped.
func (r *Router) Close() {
	r.init()
	r.cancel()
	r.mu.Lock()
	r.closed = true
	for _, f := range r.flows {
		_ = f.socket.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// target gives where a packet to an address goes: to itself if the policy
// allows, and questions for names to the resolver.
func (r *Router) target(to netip.AddrPort) (netip.AddrPort, error) {
	if resolver, ok := (NameServer{r.Gateways, r.Resolver}).target(to); ok {
		return resolver, nil
	}
	return to, r.Policy.Check(to.Addr())
}

func (r *Router) isGateway(a netip.Addr) bool {
	for _, g := range r.Gateways {
		if a == g {
			return true
		}
	}
	return false
}

// enter counts a connection, or reports that there are too many.
func (r *Router) enter(client netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.total >= maxFlows || r.streams[client] >= maxFlowsOfOne {
		return false
	}
	r.total++
	r.streams[client]++
	r.wg.Add(1)
	return true
}

func (r *Router) leave(client netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total--
	if r.streams[client]--; r.streams[client] == 0 {
		delete(r.streams, client)
	}
	r.wg.Done()
}

// TCP connects to the target of a client's connection, accepts that, and joins
// the two until they end. A target that cannot be reached is not accepted, so
// that the client sees a refusal for a refusal.
func (r *Router) TCP(from, to netip.AddrPort, accept func() (net.Conn, error)) {
	r.init()
	if err := r.tcp(from, to, accept); err != nil {
		r.Logger.LogAttrs(r.ctx, slog.LevelDebug, "connection not made", slog.Any("client", from), slog.Any("to", to), slog.Any("err", err))
	}
}

func (r *Router) tcp(from, to netip.AddrPort, accept func() (net.Conn, error)) error {
	target, err := r.target(to)
	if err != nil {
		return err
	}
	if !r.enter(from.Addr()) {
		return errors.New("too many connections")
	}
	defer r.leave(from.Addr())
	ctx, cancel := context.WithTimeout(r.ctx, defaultTimeout)
	defer cancel()
	out, err := r.Dial(ctx, "tcp", target)
	if err != nil {
		return err
	}
	in, err := accept()
	if err != nil {
		_ = out.Close()
		return err
	}
	defer context.AfterFunc(r.ctx, func() { _ = in.Close(); _ = out.Close() })()
	relay.Join(in, out)
	return nil
}

// UDP passes a client's datagram on. It does not wait for the network.
func (r *Router) UDP(from, to netip.AddrPort, payload []byte) {
	r.init()
	if err := r.udp(from, to, payload); err != nil {
		r.Logger.LogAttrs(r.ctx, slog.LevelDebug, "datagram not sent", slog.Any("client", from), slog.Any("to", to), slog.Any("err", err))
	}
}

func (r *Router) udp(from, to netip.AddrPort, payload []byte) error {
	target, err := r.target(to)
	if err != nil {
		return err
	}
	f, err := r.flow(flowKey{client: from, v6: target.Addr().Is6()})
	if err != nil {
		return err
	}
	f.allow(target, to)
	_, err = f.socket.WriteTo(payload, net.UDPAddrFromAddrPort(target))
	return err
}

// flow gives the one of a key, with a new socket if there is none.
func (r *Router) flow(k flowKey) (*flow, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, net.ErrClosed
	}
	if f := r.flows[k]; f != nil {
		f.used.Store(clock.Now())
		return f, nil
	}
	client := k.client.Addr()
	if r.of[client] >= maxFlowsOfOne && !r.evict(client) || len(r.flows) >= maxFlows {
		return nil, errors.New("too many flows")
	}
	f := &flow{r: r, key: k}
	f.used.Store(clock.Now())
	if err := f.open(); err != nil {
		return nil, err
	}
	r.flows[k] = f
	r.of[client]++
	r.wg.Go(f.run)
	return f, nil
}

// evict ends the flow of a client that was idle longest; mu is held.
func (r *Router) evict(client netip.Addr) bool {
	var oldest *flow
	for k, f := range r.flows {
		if k.client.Addr() == client && (oldest == nil || f.used.Load() < oldest.used.Load()) {
			oldest = f
		}
	}
	if oldest == nil {
		return false
	}
	r.remove(oldest)
	_ = oldest.socket.Close()
	return true
}

// remove forgets a flow; mu is held.
func (r *Router) remove(f *flow) {
	if r.flows[f.key] != f {
		return
	}
	delete(r.flows, f.key)
	client := f.key.client.Addr()
	if r.of[client]--; r.of[client] == 0 {
		delete(r.of, client)
	}
}

// Echo passes a client's ping on: message is an ICMP echo request. Pings to a
// gateway's own address are answered here.
func (r *Router) Echo(from, to netip.Addr, message []byte) {
	r.init()
	if err := r.echo(from, to, message); err != nil {
		r.Logger.LogAttrs(r.ctx, slog.LevelDebug, "ping not sent", slog.Any("client", from), slog.Any("to", to), slog.Any("err", err))
	}
}

func (r *Router) echo(from, to netip.Addr, message []byte) error {
	if len(message) < echoHeader {
		return errors.New("no header")
	}
	if r.isGateway(to) {
		reply := append([]byte{echoReply(to)}, message[1:]...)
		return r.SendICMP(to, from, reply)
	}
	if err := r.Policy.Check(to); err != nil {
		return err
	}
	id := uint16(message[4])<<8 | uint16(message[5])
	f, err := r.flow(flowKey{client: netip.AddrPortFrom(from, id), v6: to.Is6(), ping: true})
	if err != nil {
		return fmt.Errorf("open a socket for pings: %w", err)
	}
	f.allow(netip.AddrPortFrom(to, 0), netip.AddrPortFrom(to, 0))
	return f.sendEcho(to, message)
}
