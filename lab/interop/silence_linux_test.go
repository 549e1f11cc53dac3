//go:build netns

package interop

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// The move is measured at these delays, one way.
var moveDelays = []time.Duration{10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}

// One move tells as much of the machine as of the programs; the medians of several
// are better figures.
var moves = flag.Int("moves", 1, "how often the silence of a move is measured")

// A trickle is a stream of small messages, 5 ms apart: short enough to tell how
// long nothing arrived, and too little to fill anything.
type trickle struct {
	mu sync.Mutex
	at []time.Time // when something came in
}

const trickleEvery = 5 * time.Millisecond

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// send writes messages until the connection is closed or the context ends.
func (*trickle) send(ctx context.Context, c io.Writer) {
	tick := time.NewTicker(trickleEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if _, err := c.Write(make([]byte, 32)); err != nil {
			return
		}
		<-tick.C
	}
}

// receive notes when messages come in.
func (r *trickle) receive(c io.Reader) {
	b := make([]byte, 4096)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		r.mu.Lock()
		r.at = append(r.at, time.Now())
		r.mu.Unlock()
	}
}

// last is when something came in last.
func (r *trickle) last() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.at) == 0 {
		return time.Time{}
	}
	return r.at[len(r.at)-1]
}

// longest is the longest time without a message between two times.
func (r *trickle) longest(from, to time.Time) (gap time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 1; i < len(r.at); i++ {
		if r.at[i].After(from) && r.at[i-1].Before(to) {
			gap = max(gap, r.at[i].Sub(r.at[i-1]))
		}
	}
	return gap
}

// A silence is what one move cost, in each direction.
type silence struct {
	packetsUp, packetsDown time.Duration // between ESP packets at the receiving end, by the old and by the new path
	streamUp, streamDown   time.Duration // between messages
	before                 time.Duration // the longest silence before the move: this machine's
	ike                    []string      // messages by the new path
	dataBeforeAnswer       bool          // data left by it before anything was answered there
}

// row is a line of a table in Markdown; rt is a round trip. Its silences are beyond
// the normal spacing of messages.
func (s silence) row(rt time.Duration) string {
	in := func(d time.Duration) string {
		d = max(d-trickleEvery, 0)
		return fmt.Sprintf("%d ms (%.2f)", d.Milliseconds(), float64(d)/float64(rt))
	}
	return fmt.Sprintf("| %v | %s | %s | %s | %s | %d ms |", rt, in(s.packetsUp), in(s.packetsDown), in(s.streamUp), in(s.streamDown), s.before.Milliseconds())
}

const silenceHead = "| round trip | up, packets | down, packets | up, messages | down, messages | before |"

// median is of each figure alone, for an odd number of moves.
func median(all []silence) (m silence) {
	m = all[len(all)-1]
	of := func(field func(*silence) *time.Duration) {
		var ds []time.Duration
		for i := range all {
			ds = append(ds, *field(&all[i]))
		}
		slices.Sort(ds)
		*field(&m) = ds[len(ds)/2]
	}
	of(func(s *silence) *time.Duration { return &s.packetsUp })
	of(func(s *silence) *time.Duration { return &s.packetsDown })
	of(func(s *silence) *time.Duration { return &s.streamUp })
	of(func(s *silence) *time.Duration { return &s.streamDown })
	of(func(s *silence) *time.Duration { return &s.before })
	for _, s := range all {
		m.dataBeforeAnswer = m.dataBeforeAnswer || s.dataBeforeAnswer
	}
	return m
}

// moveSilence moves a client while messages trickle through the tunnel both
// ways, and tells how long either end heard nothing. The delay is between the
// client's router and the core, so packets that are under way when the client's
// link is cut still arrive at the other end. With TCP messages wait for those that
// were lost.
func moveSilence(t *testing.T, ctx context.Context, n *netns.Network, network string, dial dialFunc) (s silence) {
	t.Helper()
	up, down := new(trickle), new(trickle)
	stop, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	if network == "tcp" {
		n.Target.Serve(netns.TargetIPv4.String()+":11", func(c net.Conn) { up.receive(c) })
		n.Target.Serve(netns.TargetIPv4.String()+":12", func(c net.Conn) { down.send(stop, c) })
	} else {
		sink := n.Target.ListenPacket("udp", netns.TargetIPv4.String()+":11")
		source := n.Target.ListenPacket("udp", netns.TargetIPv4.String()+":12")
		context.AfterFunc(stop, func() { sink.Close(); source.Close() })
		all.Go(func() {
			up.receive(readerFunc(func(b []byte) (int, error) { n, _, err := sink.ReadFrom(b); return n, err }))
		})
		all.Go(func() {
			if _, to, err := source.ReadFrom(make([]byte, 100)); err == nil { // a message says where to
				down.send(stop, writerFunc(func(b []byte) (int, error) { return source.WriteTo(b, to) }))
			}
		})
	}
	open := func(port string) net.Conn {
		c, err := dial(ctx, network, net.JoinHostPort(netns.TargetIPv4.String(), port))
		if err != nil {
			t.Fatalf("through the tunnel: %v", err)
		}
		context.AfterFunc(stop, func() { c.Close() })
		return c
	}
	a, b := open("11"), open("12")
	all.Go(func() { up.send(stop, a) })
	all.Go(func() { down.receive(b) })
	if network == "udp" {
		if _, err := b.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}

	await(t, ctx, "messages both ways", func() bool { return !up.last().IsZero() && !down.last().IsZero() })
	var each []silence
	for from, to := "wifi", "cell"; len(each) < *moves; from, to = to, from {
		each = append(each, oneMove(t, ctx, n, from, to, up, down))
	}
	return median(each)
}

// oneMove moves the client while messages go both ways.
func oneMove(t *testing.T, ctx context.Context, n *netns.Network, from, to string, up, down *trickle) (s silence) {
	t.Helper()
	cl := n.Clients[0]
	atServer := n.Server.Capture("wan", 4500)
	atClient := []*netns.Capture{cl.Capture(from, 4500), cl.Capture(to, 4500)}
	started := time.Now()
	time.Sleep(time.Second) // the control: what this machine does to them
	moved := time.Now()
	cl.Move(to, netns.Hard)
	// Both ways go on, and are past whatever the move has set in motion.
	for _, r := range []*trickle{up, down} {
		await(t, ctx, "messages after the move", func() bool { return r.last().After(moved.Add(time.Second)) })
	}
	time.Sleep(time.Second)
	ended := time.Now()
	for _, c := range append(atClient, atServer) {
		c.Stop()
	}

	control := moved.Add(-100 * time.Millisecond) // in what follows the move begins
	s.before = max(up.longest(started, control), down.longest(started, control))
	s.streamUp, s.streamDown = up.longest(moved, ended), down.longest(moved, ended)
	before, after := cl.Addresses(from)[0], cl.Addresses(to)[0]
	_, lastUp := espTimes(atServer, before, netns.ServerIPv4)
	firstUp, _ := espTimes(atServer, after, netns.ServerIPv4)
	_, lastDown := espTimes(atClient[0], netns.ServerIPv4, before)
	firstDown, _ := espTimes(atClient[1], netns.ServerIPv4, after)
	if firstUp.IsZero() || firstDown.IsZero() {
		t.Fatal("nothing came by the new path")
	}
	// What is sent at once may overtake the last of the old path.
	s.packetsUp, s.packetsDown = max(firstUp.Sub(lastUp), 0), firstDown.Sub(lastDown)

	left, _ := espTimes(atClient[1], after, netns.ServerIPv4)
	answered := firstDown
	for _, m := range atClient[1].IKE(moved, ended) {
		s.ike = append(s.ike, fmt.Sprintf("%v to %v, exchange %d, ID %d", m.Time.Sub(moved), m.To.Addr(), m.Exchange, m.ID))
		if m.To.Addr() == after && m.Time.Before(answered) {
			answered = m.Time
		}
	}
	s.dataBeforeAnswer = left.Before(answered)
	return s
}

// espTimes is when the first and the last ESP packet went from one address to
// another.
func espTimes(c *netns.Capture, from, to netip.Addr) (first, last time.Time) {
	for _, s := range c.ESP() {
		if s.From.Addr() != from || s.To.Addr() != to {
			continue
		}
		if first.IsZero() || s.First.Before(first) {
			first = s.First
		}
		if s.Last.After(last) {
			last = s.Last
		}
	}
	return first, last
}

// far are two access networks at a distance.
func far(delay time.Duration) netns.Config {
	return netns.Config{Access: []netns.AccessConfig{{Name: "wifi", Delay: delay}, {Name: "cell", Delay: delay}}}
}

// silenceLimit is for what hangs: how long a silence is depends on the machine,
// and is printed.
const silenceLimit = 20 * time.Second

func (s silence) check(t *testing.T) {
	t.Helper()
	for _, m := range s.ike {
		t.Log("IKE by the new path: ", m)
	}
	for _, d := range []time.Duration{s.packetsUp, s.packetsDown, s.streamUp, s.streamDown} {
		if d < 0 || d > silenceLimit {
			t.Errorf("the silences are not those of a move: %+v", s)
			return
		}
	}
}

// The client moves against a gateway that knows MOBIKE alone. It asks nothing
// first: the update of addresses and data leave as soon as it has an address,
// and data does not wait for an answer.
func TestClientMoveSilence(t *testing.T) {
	var mu sync.Mutex
	rows := make(map[time.Duration]string)
	atOnce := false
	t.Run("moves", func(t *testing.T) {
		for _, delay := range moveDelays {
			t.Run(delay.String(), func(t *testing.T) {
				n := gatewayNetwork(t, far(delay))
				ctx := within(t, 2*time.Minute)
				gw := startCharon(t, n.Server, strongSwan{gateway: true})
				c := pskClient(t, n.Clients[0].Host)
				c.run()
				s := moveSilence(t, ctx, n, "tcp", c.DialContext)
				s.check(t)
				log := gw.log()
				at := strings.Index(log, "N(UPD_SA_ADDR)")
				if at < 0 {
					t.Fatal("no update of addresses")
				}
				if n := strings.Count(log[:at], "parsed INFORMATIONAL request"); n != 1 { // its own line
					t.Errorf("%d questions came before: %s", n-1, tail(log[:at], 2000))
				}
				mu.Lock()
				defer mu.Unlock()
				rows[delay] = s.row(2 * delay)
				atOnce = atOnce || s.dataBeforeAnswer
			})
		}
	})
	printRows(t, rows)
	// On a busy machine an answer may be there before the data; not every time.
	if !atOnce {
		t.Error("data waits for an answer by the new path")
	}
}

// strongSwan moves against our server. Messages are datagrams here.
func TestServerMoveSilence(t *testing.T) {
	var mu sync.Mutex
	rows := make(map[time.Duration]string)
	t.Run("moves", func(t *testing.T) {
		for _, delay := range moveDelays {
			t.Run(delay.String(), func(t *testing.T) {
				n := serverNetwork(t, far(delay))
				ctx := within(t, 2*time.Minute)
				startServer(t, n, "")
				cl := startCharon(t, n.Clients[0].Host, strongSwan{})
				if out := cl.connect(); !strings.Contains(out, "completed successfully") {
					t.Fatalf("not connected: %s", out)
				}
				s := moveSilence(t, ctx, n, "udp", n.Clients[0].DialContext)
				s.check(t)
				mu.Lock()
				defer mu.Unlock()
				rows[delay] = s.row(2 * delay)
			})
		}
	})
	printRows(t, rows)
}

func printRows(t *testing.T, rows map[time.Duration]string) {
	t.Log(silenceHead)
	for _, d := range slices.Sorted(slices.Values(moveDelays)) {
		t.Log(rows[d])
	}
}
