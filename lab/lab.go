// Package lab is an Internet in memory, for tests in testing/synctest bubbles.
//
// Hosts, access networks, NATs and firewalls are described in a few lines, and
// a Host is a transports.Network, so the code under test runs on it unchanged.
// There are no sockets of the system and no goroutines at rest: whatever waits
// for the laboratory waits on a channel, so a bubble's clock moves on, and what
// happens when follows from the description and the seed.
//
// A packet between hosts of two networks crosses the Up link of the first and
// the Down link of the second; between hosts of one network it crosses Up only.
// With a link of 20 ms in front of the client and one of 5 ms in front of the
// server a round trip takes exactly 50 ms.
//
// # Limitations
//
// IP options, fragments, ICMP other than "nobody listens here", multicast and
// IP protocols other than UDP and TCP are not modelled. TCP has a fixed window
// and no congestion control, so that a test can state exact times; routers are
// taken to clamp its segments to the path's MTU.
package lab

import (
	"container/heap"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// An Internet is a laboratory: its core, and all networks and hosts. One lock
// guards everything in it; it is never held while anything waits.
type Internet struct {
	seed uint64
	core *Network

	mu       sync.Mutex
	events   eventHeap
	eventSeq uint64
	draining bool
	closed   bool
	fastOpen bool
	timer    *time.Timer
	timerAt  time.Time // when timer is due; zero while it is stopped

	packetID uint64
	hosts    map[string]*Host
	networks map[string]*Network
	traces   []*tracer
}

// New makes an Internet that has nothing but a core: a network without delay,
// loss or limits that joins all others. Equal seeds give equal luck. Make it
// inside the bubble that uses it.
func New(seed uint64) *Internet {
	in := &Internet{
		seed:     seed,
		hosts:    make(map[string]*Host),
		networks: make(map[string]*Network),
	}
	in.core = in.addNetwork("core", NetworkConfig{Link: Link{MTU: maxMTU}}, nil)
	return in
}

// Core is the network that joins all others. Hosts may attach to it directly,
// with whatever address, where their own access is of no interest.
func (in *Internet) Core() *Network { return in.core }

// Now is the time in the laboratory, which is the bubble's.
func (in *Internet) Now() time.Time { return time.Now() }

// An event is something that happens in the laboratory at a given time. Events
// of one instant happen in the order in which they were planned, which timers
// of the runtime would not promise.
type event struct {
	at  time.Time
	seq uint64
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int      { return len(h) }
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h eventHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}
func (h *eventHeap) Push(x any) { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// at plans do for time t. The caller holds in.mu and calls flush before it
// lets go; do runs with in.mu held.
func (in *Internet) at(t time.Time, do func()) {
	in.eventSeq++
	heap.Push(&in.events, event{at: t, seq: in.eventSeq, do: do})
}

// flush lets everything happen that is due, and sets the timer for the rest.
// The caller holds in.mu.
func (in *Internet) flush() {
	if in.draining {
		return
	}
	in.draining = true
	now := time.Now()
	for len(in.events) > 0 && !in.events[0].at.After(now) {
		heap.Pop(&in.events).(event).do()
	}
	in.draining = false

	if len(in.events) == 0 {
		if in.timer != nil {
			in.timer.Stop()
		}
		in.timerAt = time.Time{}
		return
	}
	next := in.events[0].at
	switch {
	case in.timer == nil:
		in.timer = time.AfterFunc(next.Sub(now), in.wake)
	case !in.timerAt.Equal(next):
		in.timer.Reset(next.Sub(now))
	}
	in.timerAt = next
}

// lock takes the lock and first lets happen what is due: whatever the network
// does at an instant comes before what sockets are asked at that instant,
// though the runtime may wake the one or the other first.
func (in *Internet) lock() {
	in.mu.Lock()
	in.flush()
}

// wake is what the timer calls.
func (in *Internet) wake() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.timerAt = time.Time{}
	in.flush()
}

// Close switches everything off: all sockets are closed, what is under way is
// lost, and new sockets fail with net.ErrClosed. A bubble's clock stands still
// once its first goroutine has returned; a deferred Close frees goroutines that
// would else wait for a packet for ever.
func (in *Internet) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	for _, h := range in.hosts {
		for _, sockets := range h.udp {
			for _, s := range slices.Clone(sockets) {
				s.close()
			}
		}
		for _, l := range h.listen {
			l.close()
		}
		for _, c := range h.tcp {
			c.fail(net.ErrClosed)
		}
	}
	in.events = nil
	in.flush()
}

// Addrs parses IP addresses, for descriptions in tests. It panics when one is
// malformed.
func Addrs(s ...string) []netip.Addr {
	as := make([]netip.Addr, len(s))
	for i, a := range s {
		as[i] = netip.MustParseAddr(a)
	}
	return as
}

// Prefixes parses prefixes such as 192.168.1.0/24, for descriptions in tests.
// It panics when one is malformed.
func Prefixes(s ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(s))
	for i, p := range s {
		ps[i] = netip.MustParsePrefix(p).Masked()
	}
	return ps
}
