package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/things-go/go-socks5/statute"

	"github.com/godwit-net/godwit/clock"
)

const (
	// mappingIdle ends a mapping that carried nothing: "a default value of five
	// minutes or more [...] is RECOMMENDED". RFC 4787, Section 4.3
	mappingIdle = 5 * time.Minute
	// What one client, and all together, may hold. A mapping is one UDP socket
	// of an application, or two if it uses both families.
	maxMappingsOfOne = 256
	maxMappings      = 8192
	// maxPeers bounds from whom one mapping lets datagrams in.
	maxPeers = 256
	// mappingQueue is how many datagrams of one mapping wait, and mappingBytes how
	// much: while a name is resolved, and where they come in bursts, as those of
	// QUIC do.
	mappingQueue = 256
	mappingBytes = 512 << 10
	// socketBuffer is what a socket is asked to hold of what comes from targets.
	socketBuffer = 1 << 20

	maxDatagram = 1<<16 - 1
)

// Datagrams relays UDP for clients: each datagram that they send to the service
// inside the tunnel begins with the header of RFC 1928, Section 7, which says
// where it goes; answers come back with one that says where from. The source
// address and port of a client's datagrams stand for one socket of its
// applications, and get one of the server's, whatever the target is
// (endpoint-independent mapping, RFC 4787, Section 4.1); in comes only what is
// from an address that was sent to (address-dependent filtering, Section 5).
//
// What the policy denies, fragments and what cannot be resolved is dropped and
// logged at debug level: UDP has no other answer.
type Datagrams struct {
	Policy   Policy
	Resolver Resolver // nil means net.DefaultResolver
	// Listen opens a socket to send from; network is udp4 or udp6. Nil means
	// the system's.
	Listen func(network string) (net.PacketConn, error)
	// Names answers what is asked of this end itself.
	Names  NameServer
	Logger *slog.Logger // nil discards
}

// Serve relays between inner, the service's socket inside the tunnel, and
// targets until inner is closed. It waits for its goroutines; the error is the
// socket's.
func (d *Datagrams) Serve(inner net.PacketConn) error {
	s := &datagramService{
		d: d, inner: inner, log: d.Logger,
		mappings: make(map[netip.AddrPort]*mapping), count: make(map[netip.Addr]int),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	err := s.read()
	cancel()
	s.mu.Lock()
	for _, m := range s.mappings {
		m.close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return fmt.Errorf("datagram service: %w", err)
}

type datagramService struct {
	d     *Datagrams
	inner net.PacketConn
	log   *slog.Logger
	ctx   context.Context // ends with the service
	wg    sync.WaitGroup

	mu       sync.Mutex
	mappings map[netip.AddrPort]*mapping // by the client's inner address and port
	count    map[netip.Addr]int          // of mappings, by the client's inner address
}

// read takes clients' datagrams.
func (s *datagramService) read() error {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := s.inner.ReadFrom(b)
		if err != nil {
			return err
		}
		at, ok := from.(*net.UDPAddr)
		if !ok {
			continue
		}
		request, err := statute.ParseDatagram(b[:n])
		// "Implementation of fragmentation is optional; an implementation that
		// does not support fragmentation MUST drop any datagram whose FRAG
		// field is other than X'00'." RFC 1928, Section 7
		if err != nil || request.Frag != 0 || request.DstAddr.Port == 0 {
			s.log.LogAttrs(s.ctx, slog.LevelDebug, "datagram not understood", slog.Any("client", at), slog.Any("err", err))
			continue
		}
		m := s.mapping(at.AddrPort())
		if m == nil {
			s.log.LogAttrs(s.ctx, slog.LevelDebug, "too many UDP mappings", slog.Any("client", at))
			continue
		}
		out := outgoing{name: request.DstAddr.FQDN, port: uint16(request.DstAddr.Port), data: append([]byte(nil), request.Data...)}
		if out.name == "" {
			out.ip, _ = netip.AddrFromSlice(request.DstAddr.IP)
		}
		// One that is full drops, as a buffer anywhere else on the way does.
		size := int64(len(out.data))
		if m.waiting.Add(size) > mappingBytes {
			m.waiting.Add(-size)
			continue
		}
		select {
		case m.queue <- out:
		default:
			m.waiting.Add(-size)
		}
	}
}

// mapping finds or makes the one for a client's socket; nil if there are too
// many.
func (s *datagramService) mapping(client netip.AddrPort) *mapping {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.mappings[client]; m != nil {
		m.used.Store(clock.Now())
		return m
	}
	if s.count[client.Addr()] >= maxMappingsOfOne {
		s.evict(client.Addr())
	}
	if len(s.mappings) >= maxMappings {
		return nil
	}
	m := &mapping{s: s, client: client, to: net.UDPAddrFromAddrPort(client), queue: make(chan outgoing, mappingQueue), done: make(chan struct{})}
	m.used.Store(clock.Now())
	s.mappings[client] = m
	s.count[client.Addr()]++
	s.wg.Go(m.run)
	return m
}

// evict ends the mapping of a client that was idle longest; mu is held.
func (s *datagramService) evict(client netip.Addr) {
	var oldest *mapping
	for k, m := range s.mappings {
		if k.Addr() == client && (oldest == nil || m.used.Load() < oldest.used.Load()) {
			oldest = m
		}
	}
	if oldest != nil {
		oldest.close()
		s.remove(oldest)
	}
}

func (s *datagramService) forget(m *mapping) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(m)
}

// remove forgets a mapping; mu is held.
func (s *datagramService) remove(m *mapping) {
	if s.mappings[m.client] == m {
		delete(s.mappings, m.client)
		if s.count[m.client.Addr()]--; s.count[m.client.Addr()] == 0 {
			delete(s.count, m.client.Addr())
		}
	}
}

// outgoing is a datagram on its way to a target.
type outgoing struct {
	name string // empty: ip
	ip   netip.Addr
	port uint16
	data []byte
}

// A mapping is one socket of a client's application.
type mapping struct {
	s       *datagramService
	client  netip.AddrPort
	to      net.Addr
	queue   chan outgoing
	waiting atomic.Int64 // bytes of what is in queue
	used    atomic.Int64 // by package clock
	done    chan struct{}
	once    sync.Once

	asked   atomic.Pointer[netip.AddrPort] // the gateway of which names were asked
	sockets [2]net.PacketConn              // for IPv4 and IPv6; run's own

	mu    sync.Mutex
	names map[string]resolved // run's own
	peers map[netip.Addr]struct{}
}

// resolved is a name's address for as long as the mapping believes it.
type resolved struct {
	addr  netip.Addr
	until time.Time
}

const (
	resolvedFor    = time.Minute
	resolveTimeout = 10 * time.Second
)

func (m *mapping) close() { m.once.Do(func() { close(m.done) }) }

// run sends what comes from the client until nothing did for mappingIdle.
func (m *mapping) run() {
	defer m.s.forget(m)
	defer func() {
		for _, c := range m.sockets {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	idle := time.NewTimer(mappingIdle)
	defer idle.Stop()
	for {
		select {
		case o := <-m.queue:
			m.waiting.Add(-int64(len(o.data)))
			if err := m.send(o); err != nil {
				m.s.log.LogAttrs(m.s.ctx, slog.LevelDebug, "datagram not sent", slog.Any("client", m.client), slog.Any("err", err))
			}
		case <-idle.C:
			left := mappingIdle - clock.Since(m.used.Load())
			if left <= 0 {
				return
			}
			idle.Reset(left)
		case <-m.done:
			return
		}
	}
}

func (m *mapping) send(o outgoing) error {
	addr, err := m.address(o)
	if err != nil {
		return err
	}
	to := netip.AddrPortFrom(addr, o.port)
	if resolver, ok := m.s.d.Names.target(to); ok {
		asked := to
		m.asked.Store(&asked)
		to = resolver
	} else if err := m.s.d.Policy.Check(addr); err != nil {
		return err
	}
	c, err := m.socket(to.Addr())
	if err != nil {
		return err
	}
	m.allow(to.Addr())
	_, err = c.WriteTo(o.data, net.UDPAddrFromAddrPort(to))
	return err
}

// address resolves a name, once a minute.
func (m *mapping) address(o outgoing) (netip.Addr, error) {
	if o.name == "" {
		return o.ip.Unmap(), nil
	}
	if a, err := netip.ParseAddr(o.name); err == nil {
		return a.Unmap().WithZone(""), nil
	}
	now := time.Now()
	if r, ok := m.names[o.name]; ok && now.Before(r.until) {
		return r.addr, nil
	}
	ctx, cancel := context.WithTimeout(m.s.ctx, resolveTimeout)
	defer cancel()
	lookup := Dialer{Policy: m.s.d.Policy, Resolver: m.s.d.Resolver}
	addrs, err := lookup.resolve(ctx, "ip", o.name)
	if err == nil {
		addrs, err = lookup.filter(addrs, "ip")
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: %w", o.name, err)
	}
	if m.names == nil || len(m.names) >= maxPeers {
		m.names = make(map[string]resolved)
	}
	m.names[o.name] = resolved{addrs[0], now.Add(resolvedFor)}
	return addrs[0], nil
}

// socket gives the one of addr's family and starts to read from a new one.
func (m *mapping) socket(addr netip.Addr) (net.PacketConn, error) {
	i, network := 0, "udp4"
	if addr.Is6() {
		i, network = 1, "udp6"
	}
	if m.sockets[i] != nil {
		return m.sockets[i], nil
	}
	listen := m.s.d.Listen
	if listen == nil {
		listen = func(network string) (net.PacketConn, error) { return net.ListenPacket(network, ":0") }
	}
	c, err := listen(network)
	if err != nil {
		return nil, err
	}
	if b, ok := c.(interface{ SetReadBuffer(int) error }); ok {
		_ = b.SetReadBuffer(socketBuffer) // as much of it as the system grants
	}
	m.sockets[i] = c
	m.s.wg.Go(func() { m.receive(c) })
	return c, nil
}

// allow lets datagrams in that come from addr.
func (m *mapping) allow(addr netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.peers[addr]; ok {
		return
	}
	if m.peers == nil || len(m.peers) >= maxPeers {
		m.peers = make(map[netip.Addr]struct{})
	}
	m.peers[addr] = struct{}{}
}

func (m *mapping) allowed(addr netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.peers[addr]
	return ok
}

// headerRoom is what a header takes at most for an address.
const headerRoom = 4 + 16 + 2

// receive brings answers to the client until the socket is closed.
func (m *mapping) receive(c net.PacketConn) {
	b := make([]byte, headerRoom+maxDatagram)
	for {
		n, from, err := c.ReadFrom(b[headerRoom:])
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// An ICMP error about a target is no end of the socket; but do not
			// spin on one that stays.
			select {
			case <-time.After(10 * time.Millisecond):
				continue
			case <-m.done:
				return
			}
		}
		at, ok := from.(*net.UDPAddr)
		if !ok {
			continue
		}
		source := netip.AddrPortFrom(at.AddrPort().Addr().Unmap().WithZone(""), uint16(at.Port))
		if !m.allowed(source.Addr()) {
			continue
		}
		m.used.Store(clock.Now())
		if asked := m.asked.Load(); asked != nil && source == m.s.d.Names.Resolver {
			source = *asked // who was asked is who answers
		}
		head := statute.Datagram{DstAddr: statute.AddrSpec{IP: source.Addr().AsSlice(), Port: int(source.Port()), AddrType: statute.ATYPIPv4}}
		if source.Addr().Is6() {
			head.DstAddr.AddrType = statute.ATYPIPv6
		}
		h := head.Header()
		packet := b[headerRoom-len(h) : headerRoom+n]
		copy(packet, h)
		if _, err := m.s.inner.WriteTo(packet, m.to); err != nil && m.s.ctx.Err() == nil {
			m.s.log.LogAttrs(m.s.ctx, slog.LevelDebug, "answer not sent", slog.Any("client", m.client), slog.Any("err", err))
		}
	}
}
