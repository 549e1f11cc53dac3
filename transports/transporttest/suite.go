// Package transporttest is the suite that every transport passes, and what it is
// made of: an in-memory network and a handler that records.
package transporttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
)

// A Suite is a transport to be tested.
type Suite struct {
	// Transport is the client's end.
	Transport transports.Transport
	// Serve starts the server's end. It gives the address to dial (local, with
	// the port that was really taken) and what closes it; that has to wait for
	// Serve to return.
	Serve func(t testing.TB, n transports.Network, local netip.AddrPort, h transports.Handler) (remote netip.AddrPort, stop func())
	// Stream says that nothing is lost, that Send waits, and that one end's
	// Close ends the other.
	Stream bool
}

// env is one server and what it takes to dial it.
type env struct {
	Suite
	network transports.Network
	remote  netip.AddrPort
	server  *Recorder
	client  *Recorder
	stop    func()
	dialled []transports.Carrier
}

// Run runs the suite on the system's loopback and in bubbles.
func Run(t *testing.T, s Suite) {
	for _, c := range []struct {
		name   string
		test   func(*testing.T, *env)
		stream bool // only for streams
		bubble bool // needs to know when all is quiet
	}{
		{name: "Boundaries", test: testBoundaries},
		{name: "Batches", test: testBatches},
		{name: "TooBig", test: testTooBig},
		{name: "First", test: testFirst},
		{name: "Describe", test: testDescribe},
		{name: "StopServer", test: testStopServer},
		{name: "CancelDial", test: testCancelDial},
		{name: "Concurrent", test: testConcurrent, stream: true},
		{name: "CloseOnce", test: testCloseOnce, bubble: true},
		{name: "CloseInReceive", test: testCloseInReceive, bubble: true},
		{name: "CloseUnblocksSend", test: testCloseUnblocksSend, stream: true, bubble: true},
		{name: "UrgentGoesAhead", test: testUrgent, stream: true, bubble: true},
	} {
		if c.stream && !s.Stream {
			continue
		}
		if !c.bubble {
			t.Run(c.name+"/system", func(t *testing.T) {
				leaks := goleak.IgnoreCurrent()
				e := s.start(t, system.New(), netip.MustParseAddrPort("127.0.0.1:0"))
				defer goleak.VerifyNone(t, leaks)
				defer e.finish()
				c.test(t, e)
			})
		}
		t.Run(c.name+"/memory", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := s.start(t, NewMemory(), netip.MustParseAddrPort("192.0.2.1:4500"))
				defer e.finish()
				c.test(t, e)
			})
		})
	}
}

func (s Suite) start(t testing.TB, n transports.Network, local netip.AddrPort) *env {
	e := &env{Suite: s, network: n, server: NewRecorder(), client: NewRecorder()}
	e.remote, e.stop = s.Serve(t, n, local, e.server)
	return e
}

// finish ends everything, whatever state the test left it in.
func (e *env) finish() {
	for _, c := range e.dialled {
		c.Close()
	}
	e.stop()
}

// open dials.
func (e *env) open(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	c, err := e.Transport.Dial(ctx, o)
	if err == nil {
		e.dialled = append(e.dialled, c)
	}
	return c, err
}

func (e *env) opening() transports.Opening {
	return transports.Opening{Network: e.network, Remote: e.remote, Handler: e.client}
}

// dial opens a carrier, and has the server know it by one packet.
func (e *env) dial(t testing.TB) (client, server transports.Carrier) {
	t.Helper()
	client, err := e.open(t.Context(), e.opening())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Send([]transports.Packet{esp(10, 0)}); err != nil {
		t.Fatalf("first packet: %v", err)
	}
	e.server.Take(1)
	return client, e.server.Carrier()
}

func esp(size, n int) transports.Packet {
	return transports.Packet{Kind: transports.KindESP, Data: Payload(transports.KindESP, size, n)}
}

func ike(size, n int) transports.Packet {
	return transports.Packet{Kind: transports.KindIKE, Urgent: true, Data: Payload(transports.KindIKE, size, n)}
}

// exchange sends ps each way and compares.
func exchange(t *testing.T, c transports.Carrier, r *Recorder, ps ...transports.Packet) {
	t.Helper()
	if err := c.Send(ps); err != nil {
		t.Fatalf("send: %v", err)
	}
	same(t, r.Take(len(ps)), ps)
}

func same(t *testing.T, got, want []transports.Packet) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Kind != want[i].Kind || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Fatalf("packet %d: %s of %d bytes, want %s of %d bytes, or other content",
				i, got[i].Kind, len(got[i].Data), want[i].Kind, len(want[i].Data))
		}
	}
}

// maxIKE is the largest IKE message: see transports.Carrier.
func maxIKE(c transports.Carrier) int {
	if c.Name().Datagrams() {
		return c.MTU() - 4
	}
	return c.MTU()
}

// testBoundaries: every size arrives whole and as the kind that it was.
func testBoundaries(t *testing.T, e *env) {
	c, s := e.dial(t)
	for size := 1; size <= c.MTU(); size++ {
		if size > 2100 && size < c.MTU()-2 && size%9973 != 0 {
			continue // the neighbourhood of buffers' and limits' sizes is enough
		}
		exchange(t, c, e.server, esp(size, size))
		exchange(t, s, e.client, esp(size, size+1))
		if size <= maxIKE(c) {
			exchange(t, c, e.server, ike(size, size))
			exchange(t, s, e.client, ike(size, size+1))
		}
	}
}

// testBatches: many packets in one call arrive, in order, as many packets.
func testBatches(t *testing.T, e *env) {
	c, s := e.dial(t)
	for _, to := range []struct {
		c transports.Carrier
		r *Recorder
	}{{c, e.server}, {s, e.client}} {
		var equal, mixed []transports.Packet
		for i := range 150 {
			equal = append(equal, esp(1400, i))
			p := esp(1+i*37%1400, i)
			if i%5 == 0 {
				p = ike(1+i*37%1400, i)
				p.Urgent = false // the order is to be kept
			}
			mixed = append(mixed, p)
		}
		exchange(t, to.c, to.r, equal...)
		exchange(t, to.c, to.r, mixed...)
		if err := to.c.Send(nil); err != nil {
			t.Errorf("nothing to send: %v", err)
		}
	}
}

// testTooBig: one packet above the MTU does not keep the others.
func testTooBig(t *testing.T, e *env) {
	c, s := e.dial(t)
	for _, c := range []transports.Carrier{c, s} {
		r := e.server
		if c == s {
			r = e.client
		}
		for _, big := range []transports.Packet{esp(c.MTU()+1, 1), ike(maxIKE(c)+1, 1)} {
			good := []transports.Packet{esp(100, 2), esp(101, 3)}
			if err := c.Send([]transports.Packet{good[0], big, good[1]}); !errors.Is(err, transports.ErrTooBig) {
				t.Errorf("%s above the MTU: %v", big.Kind, err)
			}
			same(t, r.Take(2), good)
		}
	}
}

// testFirst: First is asked once, knows the addresses, and its packets are the
// first to arrive; the answer to them comes back.
func testFirst(t *testing.T, e *env) {
	first := []transports.Packet{ike(300, 1), esp(280, 2), esp(1400, 3)}
	if e.Stream { // more than fits into any header
		for i := range 20 {
			first = append(first, esp(1400, i))
		}
	}
	answer := ike(200, 9)
	var once sync.Once
	e.server.React(func(c transports.Carrier, _ []transports.Packet) {
		once.Do(func() {
			if err := c.Send([]transports.Packet{answer}); err != nil {
				t.Errorf("answer: %v", err)
			}
		})
	})
	calls := 0
	var told transports.Description
	o := e.opening()
	o.First = func(d transports.Description) []transports.Packet {
		calls, told = calls+1, d
		return first
	}
	c, err := e.open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if calls != 1 || told != c.Describe() {
		t.Errorf("First was called %d times, with %v; carrier is %v", calls, told, c.Describe())
	}
	got := e.server.Take(len(first))
	if e.Stream {
		// Urgent ones would go ahead; here the IKE message is first anyway.
		same(t, got, first)
	} else if len(got) != len(first) {
		t.Errorf("%d packets, want %d", len(got), len(first))
	}
	same(t, e.client.Take(1), []transports.Packet{answer})
}

// testDescribe: with nothing in between both ends see the same.
func testDescribe(t *testing.T, e *env) {
	c, s := e.dial(t)
	if c.Describe() != s.Describe().Reverse() {
		t.Errorf("client sees %+v, server %+v", c.Describe(), s.Describe())
	}
	if c.Describe().Destination != e.remote || c.Describe().Encapsulation != e.Transport.Name() || c.Name() != e.Transport.Name() {
		t.Errorf("description %+v of %s", c.Describe(), c.Name())
	}
	if c.Validated() != e.Stream || s.Validated() != e.Stream {
		t.Errorf("validated: client %t, server %t", c.Validated(), s.Validated())
	}
	if again, _ := e.dial(t); again.Describe() == c.Describe() {
		t.Error("two carriers with one description")
	}
}

// testStopServer: the listener's end is the end of its carriers.
func testStopServer(t *testing.T, e *env) {
	c, s := e.dial(t)
	e.stop()
	if ends := e.server.Ends(s); !errors.Is(ends[0], net.ErrClosed) {
		t.Errorf("server's carrier ended with %v", ends[0])
	}
	if err := s.Send([]transports.Packet{esp(10, 1)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send after the listener's end: %v", err)
	}
	if !e.Stream {
		c.Close()
	}
	e.client.Ends(c)
}

// stalled is a network that never connects.
type stalled struct {
	transports.Network
	asked chan struct{}
}

func (s stalled) wait(ctx context.Context) (net.Conn, error) {
	close(s.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s stalled) DialTCP(ctx context.Context, _ netip.Addr, _ netip.AddrPort) (net.Conn, error) {
	return s.wait(ctx)
}

func (s stalled) DialUDP(ctx context.Context, _ netip.Addr, _ netip.AddrPort) (net.Conn, error) {
	return s.wait(ctx)
}

// testCancelDial: a cancelled attempt ends with the context's error, and a
// carrier outlives the context that it was opened with.
func testCancelDial(t *testing.T, e *env) {
	ctx, cancel := context.WithCancel(t.Context())
	o := e.opening()
	n := stalled{e.network, make(chan struct{})}
	o.Network = n
	go func() {
		<-n.asked
		cancel()
	}()
	if c, err := e.open(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled dial: %v, %v", c, err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	c, err := e.open(ctx, e.opening())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	exchange(t, c, e.server, esp(100, 1))
	exchange(t, e.server.Carrier(), e.client, esp(100, 2))
}

// testConcurrent: several senders, both ways, nothing lost and each one's
// packets in order.
func testConcurrent(t *testing.T, e *env) {
	const senders, count = 4, 2000
	c, s := e.dial(t)
	var wg sync.WaitGroup
	for _, c := range []transports.Carrier{c, s} {
		for id := range senders {
			wg.Go(func() {
				var ps []transports.Packet
				for n := range count {
					b := make([]byte, 16+n%1400)
					b[0] = 1
					binary.BigEndian.PutUint32(b[4:], uint32(id))
					binary.BigEndian.PutUint32(b[8:], uint32(n))
					ps = append(ps, transports.Packet{Kind: transports.KindESP, Data: b})
					if len(ps) > n%40 {
						if err := c.Send(ps); err != nil {
							t.Errorf("send: %v", err)
							return
						}
						ps = ps[:0]
					}
				}
				if err := c.Send(ps); err != nil {
					t.Errorf("send: %v", err)
				}
			})
		}
	}
	for _, r := range []*Recorder{e.server, e.client} {
		var next [senders]uint32
		for _, p := range r.Packets(senders * count) {
			id, n := binary.BigEndian.Uint32(p.Data[4:]), binary.BigEndian.Uint32(p.Data[8:])
			if int(id) >= senders || n != next[id] || len(p.Data) != 16+int(n)%1400 {
				t.Fatalf("packet %d of sender %d with %d bytes, want packet %v", n, id, len(p.Data), next)
			}
			next[id]++
		}
	}
	wg.Wait()
}

// testCloseOnce: Closed comes once at each end, whoever closes.
func testCloseOnce(t *testing.T, e *env) {
	for _, byServer := range []bool{false, true} {
		e.server.Forget()
		c, s := e.dial(t)
		closer, cr, other, or := c, e.client, s, e.server
		if byServer {
			closer, cr, other, or = s, e.server, c, e.client
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { closer.Close() })
		}
		wg.Wait()
		if !e.Stream { // the other end can't know
			other.Close()
		}
		synctest.Wait()
		if ends := cr.Ends(closer); len(ends) != 1 || !errors.Is(ends[0], net.ErrClosed) {
			t.Errorf("closing end, by server %t: %v", byServer, ends)
		}
		ends := or.Ends(other)
		if len(ends) != 1 || e.Stream && errors.Is(ends[0], net.ErrClosed) {
			t.Errorf("other end, by server %t: %v", byServer, ends)
		}
		for _, c := range []transports.Carrier{closer, other} {
			if err := c.Send([]transports.Packet{esp(10, 1)}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("send after the end: %v", err)
			}
			if err := c.Send([]transports.Packet{ike(10, 1)}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("urgent send after the end: %v", err)
			}
			c.Close()
		}
		synctest.Wait()
		if n := len(cr.Ends(closer)) + len(or.Ends(other)); n != 2 {
			t.Errorf("%d calls of Closed for two ends", n)
		}
	}
}

// testCloseInReceive: a handler may close the carrier that it is called for.
func testCloseInReceive(t *testing.T, e *env) {
	e.server.React(func(c transports.Carrier, _ []transports.Packet) { c.Close() })
	c, s := e.dial(t)
	synctest.Wait()
	if ends := e.server.Ends(s); len(ends) != 1 || !errors.Is(ends[0], net.ErrClosed) {
		t.Errorf("server's end: %v", ends)
	}
	c.Send([]transports.Packet{esp(10, 1)})
	c.Close()
	synctest.Wait()
	if n := e.server.AfterEnd(); n != 0 {
		t.Errorf("%d packets after the end", n)
	}
}

// fill sends until nothing fits any more, and gives the number of packets that
// were taken and what ends the sender.
func fill(c transports.Carrier) (taken *int, result chan error) {
	taken, result = new(int), make(chan error, 1)
	go func() {
		for {
			if err := c.Send([]transports.Packet{esp(1400, *taken)}); err != nil {
				result <- err
				return
			}
			*taken++
		}
	}()
	synctest.Wait()
	return taken, result
}

// testCloseUnblocksSend: a sender that waits for room ends with the carrier,
// though the peer does not read.
func testCloseUnblocksSend(t *testing.T, e *env) {
	for _, byServer := range []bool{false, true} {
		e.server.Forget()
		c, s := e.dial(t)
		release := e.server.Hold()
		taken, result := fill(c)
		select {
		case err := <-result:
			t.Fatalf("send failed after %d packets: %v", *taken, err)
		default: // blocked, since all goroutines are
		}
		if byServer {
			s.Close()
		} else {
			c.Close()
		}
		if err := <-result; !errors.Is(err, net.ErrClosed) {
			t.Errorf("send ended with %v", err)
		}
		release()
		e.client.Ends(c)
		e.server.Ends(s)
		e.server.Take(0)
	}
}

// testUrgent: where others wait, urgent packets are taken, until their own room
// is full, and they arrive before what has waited.
func testUrgent(t *testing.T, e *env) {
	c, _ := e.dial(t)
	release := e.server.Hold()
	taken, result := fill(c)
	before := *taken
	for i := range 10 {
		if err := c.Send([]transports.Packet{ike(100, i)}); err != nil {
			t.Fatalf("urgent packet %d: %v", i, err)
		}
	}
	full := 0
	for ; ; full++ {
		err := c.Send([]transports.Packet{ike(1000, full)})
		if errors.Is(err, transports.ErrFull) {
			break
		}
		if err != nil || full > 1<<16 {
			t.Fatalf("urgent packet %d: %v", full, err)
		}
	}
	if *taken != before {
		t.Errorf("urgent packets made room for %d others", *taken-before)
	}
	release()
	ps := e.server.Packets(before + 10 + full)
	seen := 0
	for i, p := range ps {
		if p.Kind == transports.KindIKE {
			same(t, ps[i:i+1], []transports.Packet{ike(100, seen)})
			if seen++; seen == 10 {
				if behind := before - (i - 9); behind*1400 < 256<<10 {
					t.Errorf("urgent packets overtook %d others only", behind)
				}
				break
			}
		}
	}
	if seen != 10 {
		t.Errorf("%d urgent packets seen", seen)
	}
	c.Close()
	<-result
}
