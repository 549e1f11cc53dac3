package machine

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/things-go/go-socks5/statute"
)

const (
	dnsHeader = 12 // RFC 1035, Section 4.1.1
	// maxQueries bounds the questions without an answer; queryFor is how long one
	// is waited for. Programs ask again after a second or five.
	maxQueries = 2048
	queryFor   = 30 * time.Second
)

// names passes questions for names on to the server's name server. All share one
// socket in the tunnel, as every question has a source of its own, of which the
// server has no use; their numbers are changed to tell them apart.
type names struct {
	f     *forwarder
	queue chan datagram
	asked atomic.Uint64
	start sync.Once

	outside outside

	mu      sync.Mutex
	waiting map[uint16]query
}

// A query is a question under way.
type query struct {
	from, to netip.AddrPort
	id       uint16 // as the program knows it
	at       time.Time
}

func newNames(f *forwarder) *names {
	return &names{f: f, queue: make(chan datagram, flowQueue), waiting: make(map[uint16]query)}
}

// takes reports whether what goes to an address is a question to be led to the
// server's name server: those to the device's far end are, and those to name
// servers that answer only in the network where the machine is.
func (n *names) takes(to netip.AddrPort) bool {
	if n.f.c.NoDNS || to.Port() != portDNS {
		return false
	}
	a := to.Addr()
	if a == Far4 || a == Far6 || a.IsPrivate() || a.IsLinkLocalUnicast() {
		return true
	}
	return slices.Contains(n.outside.servers(), a)
}

// server is who is asked.
func (n *names) server(ctx context.Context) (netip.AddrPort, error) {
	if n.f.c.Resolver.IsValid() {
		return netip.AddrPortFrom(n.f.c.Resolver, portDNS), nil
	}
	a, err := n.f.c.Gateway(ctx)
	return netip.AddrPortFrom(a, portDNS), err
}

// ask passes a question on. It does not wait.
func (n *names) ask(from, to netip.AddrPort, payload []byte) {
	if len(payload) < dnsHeader || payload[2]&0x80 != 0 {
		return // not a question
	}
	n.asked.Add(1)
	now := time.Now()
	n.mu.Lock()
	if len(n.waiting) >= maxQueries {
		for id, q := range n.waiting {
			if now.Sub(q.at) > queryFor {
				delete(n.waiting, id)
			}
		}
	}
	if len(n.waiting) >= maxQueries {
		n.mu.Unlock()
		return
	}
	id := uint16(rand.Uint32())
	for _, taken := n.waiting[id]; taken; _, taken = n.waiting[id] {
		id++
	}
	n.waiting[id] = query{from: from, to: to, id: binary.BigEndian.Uint16(payload), at: now}
	n.mu.Unlock()
	binary.BigEndian.PutUint16(payload, id)
	n.start.Do(func() {
		if n.f.enter() {
			go func() {
				defer n.f.wg.Done()
				n.run()
			}()
		}
	})
	select {
	case n.queue <- datagram{payload: payload}:
	default:
	}
}

// run passes questions and answers until the forwarder ends.
func (n *names) run() {
	ctx := n.f.ctx
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		far, err := n.f.c.Associate(ctx)
		var server netip.AddrPort
		if err == nil {
			if server, err = n.server(ctx); err != nil {
				_ = far.Close()
			}
		}
		if err == nil {
			n.serve(far, server)
		} else if ctx.Err() == nil {
			n.f.debug("no way for names", netip.AddrPort{}, server, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (n *names) serve(far net.Conn, server netip.AddrPort) {
	ctx, cancel := context.WithCancel(n.f.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = far.Close() })
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		receive(ctx, far, n.answer)
	}()
	defer func() {
		_ = far.Close()
		<-done
	}()
	head := appendHead(nil, server)
	for {
		select {
		case d := <-n.queue:
			// An error of one is no end of the socket; receive sees that.
			_, _ = far.Write(append(slices.Clone(head), d.payload...))
		case <-ctx.Done():
			return
		}
	}
}

// answer brings an answer to who asked.
func (n *names) answer(d statute.Datagram, _ netip.AddrPort) {
	if len(d.Data) < dnsHeader {
		return
	}
	id := binary.BigEndian.Uint16(d.Data)
	n.mu.Lock()
	q, ok := n.waiting[id]
	delete(n.waiting, id)
	n.mu.Unlock()
	if !ok {
		return
	}
	binary.BigEndian.PutUint16(d.Data, q.id)
	if err := n.f.stack.SendUDP(q.to, q.from, d.Data); err != nil {
		n.f.debug("answer not delivered", q.to, q.from, err)
	}
}
