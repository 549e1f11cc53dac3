package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/things-go/go-socks5/statute"

	"github.com/godwit-net/godwit/clock"
	"github.com/godwit-net/godwit/tunnel/relay"
)

const (
	// dialTimeout bounds the wait for a target. An outage may last longer than
	// the machine's own patience for a connection, which is about two minutes
	// on Linux; then nobody waits any more.
	dialTimeout = 150 * time.Second
	// flowIdle ends a flow that carried nothing: "a default value of five
	// minutes or more [...] is RECOMMENDED". RFC 4787, Section 4.3
	flowIdle = 5 * time.Minute
	// maxFlows bounds the sources of datagrams; who was idle longest makes room.
	// The server has room for 256 of one client.
	maxFlows  = 200
	flowQueue = 128 // datagrams that wait for the link

	maxDatagram = 1<<16 - 1
)

// A forwarder passes on what comes out of the device.
type forwarder struct {
	c     Config
	ctx   context.Context // ends with it
	log   *slog.Logger
	stack sender
	names *names
	wg    sync.WaitGroup

	streams atomic.Int64

	mu     sync.Mutex
	closed bool
	flows  map[netip.AddrPort]*flow // by source
}

// A sender is the stack behind the device.
type sender interface {
	SendUDP(from, to netip.AddrPort, payload []byte) error
	SendICMP(from, to netip.Addr, message []byte) error
}

func newForwarder(ctx context.Context, c Config) *forwarder {
	f := &forwarder{c: c, ctx: ctx, log: c.Logger, flows: make(map[netip.AddrPort]*flow)}
	f.names = newNames(f)
	return f
}

// close ends all flows and waits; ctx is over, and the stack closed.
func (f *forwarder) close() {
	f.mu.Lock()
	f.closed = true
	for _, fl := range f.flows {
		fl.end()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// enter counts a goroutine that close waits for.
func (f *forwarder) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.wg.Add(1)
	return true
}

// tcp connects through the tunnel first and accepts then, so that a program sees
// a refusal for a refusal.
func (f *forwarder) tcp(from, to netip.AddrPort, accept func() (net.Conn, error)) {
	if !f.enter() {
		return
	}
	defer f.wg.Done()
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout)
	defer cancel()
	target := to
	if f.names.takes(to) {
		var err error
		if target, err = f.names.server(ctx); err != nil {
			f.debug("name server not known", from, to, err)
			return
		}
	} else if !reachable(to.Addr()) {
		return
	}
	out, err := f.c.Dial(ctx, "tcp", target.String())
	if err != nil {
		f.debug("connection not made", from, to, err)
		return
	}
	in, err := accept()
	if err != nil {
		_ = out.Close()
		f.debug("connection not accepted", from, to, err)
		return
	}
	f.streams.Add(1)
	defer f.streams.Add(-1)
	defer context.AfterFunc(f.ctx, func() { _ = in.Close(); _ = out.Close() })()
	relay.Join(in, out)
}

// reachable holds for addresses of single hosts elsewhere.
func reachable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		a != Far4 && a != Far6 && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (f *forwarder) debug(what string, from, to netip.AddrPort, err error) {
	f.log.LogAttrs(f.ctx, slog.LevelDebug, what, slog.Any("from", from), slog.Any("to", to), slog.Any("err", err))
}

// udp passes a datagram to the flow of its source.
func (f *forwarder) udp(from, to netip.AddrPort, payload []byte) {
	if f.names.takes(to) {
		f.names.ask(from, to, payload)
		return
	}
	if !reachable(to.Addr()) || to.Port() == 0 {
		return
	}
	fl := f.flow(from)
	if fl == nil {
		return
	}
	fl.used.Store(clock.Now())
	select {
	case fl.queue <- datagram{to, payload}:
	default: // as a full buffer anywhere else on the way
	}
}

// flow finds or makes the one of a source; nil after close.
func (f *forwarder) flow(from netip.AddrPort) *flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	if fl := f.flows[from]; fl != nil {
		return fl
	}
	if len(f.flows) >= maxFlows {
		var oldest *flow
		for _, fl := range f.flows {
			if oldest == nil || fl.used.Load() < oldest.used.Load() {
				oldest = fl
			}
		}
		delete(f.flows, oldest.from)
		oldest.end()
	}
	fl := &flow{f: f, from: from, queue: make(chan datagram, flowQueue)}
	fl.ctx, fl.end = context.WithCancel(f.ctx)
	fl.used.Store(clock.Now())
	f.flows[from] = fl
	f.wg.Go(fl.run)
	return fl
}

type datagram struct {
	to      netip.AddrPort
	payload []byte
}

// A flow is one socket of a program on this machine, and the one in the tunnel
// that stands for it.
type flow struct {
	f     *forwarder
	from  netip.AddrPort
	queue chan datagram
	used  atomic.Int64 // by package clock
	ctx   context.Context
	end   context.CancelFunc
}

func (fl *flow) run() {
	defer fl.forget()
	far, err := fl.f.c.Associate(fl.ctx)
	if err != nil {
		if fl.ctx.Err() == nil {
			fl.f.debug("no way for datagrams", fl.from, netip.AddrPort{}, err)
		}
		return
	}
	stop := context.AfterFunc(fl.ctx, func() { _ = far.Close() })
	defer stop()
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fl.answers(far)
	}()
	defer func() {
		_ = far.Close()
		<-done
	}()
	idle := time.NewTimer(flowIdle)
	defer idle.Stop()
	var b []byte
	for {
		select {
		case d := <-fl.queue:
			b = append(appendHead(b[:0], d.to), d.payload...)
			if _, err := far.Write(b); errors.Is(err, net.ErrClosed) {
				return
			}
		case <-idle.C:
			left := flowIdle - clock.Since(fl.used.Load())
			if left <= 0 {
				return
			}
			idle.Reset(left)
		case <-fl.ctx.Done():
			return
		}
	}
}

func (fl *flow) forget() {
	fl.end()
	fl.f.mu.Lock()
	defer fl.f.mu.Unlock()
	if fl.f.flows[fl.from] == fl {
		delete(fl.f.flows, fl.from)
	}
}

// answers brings what comes from targets to the program, until far is closed.
func (fl *flow) answers(far net.Conn) {
	receive(fl.ctx, far, func(d statute.Datagram, from netip.AddrPort) {
		fl.used.Store(clock.Now())
		// One of the other family is no answer to anything this socket sent.
		if err := fl.f.stack.SendUDP(from, fl.from, d.Data); err != nil {
			fl.f.debug("answer not delivered", from, fl.from, err)
		}
	})
}

// receive takes datagrams with the header of RFC 1928, Section 7, until far is
// closed or ctx ends.
func receive(ctx context.Context, far net.Conn, take func(d statute.Datagram, from netip.AddrPort)) {
	b := make([]byte, maxDatagram)
	for {
		n, err := far.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return
		case err != nil:
			// The other end of the tunnel may refuse; that is not for good.
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
				return
			}
		}
		d, err := statute.ParseDatagram(b[:n])
		if err != nil || d.Frag != 0 || d.DstAddr.FQDN != "" {
			continue
		}
		a, ok := netip.AddrFromSlice(d.DstAddr.IP)
		if !ok {
			continue
		}
		take(d, netip.AddrPortFrom(a.Unmap(), uint16(d.DstAddr.Port)))
	}
}

// appendHead appends the header of RFC 1928, Section 7.
func appendHead(b []byte, to netip.AddrPort) []byte {
	kind := statute.ATYPIPv4
	if to.Addr().Is6() {
		kind = statute.ATYPIPv6
	}
	b = append(b, 0, 0, 0, kind)
	b = append(b, to.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(b, to.Port())
}

// ICMP and ICMPv6, RFC 792 and RFC 4443: a destination that policy forbids.
const (
	echoReply4, echoReply6         = 0, 129
	unreachable4, prohibited4      = 3, 13 // RFC 1812, Section 5.2.7.1
	unreachable6, prohibited6      = 1, 1
	protocolICMP4, protocolICMP6   = 1, 58
	icmpHeader, quoted             = 8, 8
	ipv4HeaderSize, ipv6HeaderSize = 20, 40
)

// echo answers pings to the far end of the device. All others are refused, so
// that nobody takes a host for reachable, or waits, that was never asked.
func (f *forwarder) echo(from, to netip.Addr, message []byte) {
	if len(message) < icmpHeader || !from.IsValid() {
		return
	}
	answer, source := message, to
	switch to {
	case Far4:
		answer[0] = echoReply4
	case Far6:
		answer[0] = echoReply6
	default:
		answer, source = refusal(from, to, message), Far4
		if to.Is6() {
			source = Far6
		}
	}
	// Sent from another goroutine, as the stack is just giving us the request.
	if !f.enter() {
		return
	}
	go func() {
		defer f.wg.Done()
		_ = f.stack.SendICMP(source, from, answer)
	}()
}

// refusal is the ICMP error about an echo request. What it quotes of the packet
// is made up but for what tells the program which of its pings is meant.
func refusal(from, to netip.Addr, message []byte) []byte {
	head := []byte{unreachable4, prohibited4, 0, 0, 0, 0, 0, 0}
	packet := make([]byte, ipv4HeaderSize)
	if to.Is4() {
		packet[0] = 4<<4 | ipv4HeaderSize/4
		binary.BigEndian.PutUint16(packet[2:], uint16(min(ipv4HeaderSize+len(message), maxDatagram)))
		packet[8], packet[9] = 64, protocolICMP4
		copy(packet[12:], from.AsSlice())
		copy(packet[16:], to.AsSlice())
	} else {
		head[0], head[1] = unreachable6, prohibited6
		packet = make([]byte, ipv6HeaderSize)
		packet[0] = 6 << 4
		binary.BigEndian.PutUint16(packet[4:], uint16(min(len(message), maxDatagram)))
		packet[6], packet[7] = protocolICMP6, 64
		copy(packet[8:], from.AsSlice())
		copy(packet[24:], to.AsSlice())
	}
	return slices.Concat(head, packet, message[:quoted])
}
