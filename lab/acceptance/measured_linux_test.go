//go:build netns

package acceptance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A stream is one direction of a connection through the tunnel: numbered messages,
// each checked where it arrives, and when that was.
type stream struct {
	wrote chan int // takes how many were sent, when stopped
	mu    sync.Mutex
	at    []time.Time // of each arrival
	err   error
}

const measuredMessage = 700 // bytes

func measuredBytes(n int) []byte {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(n)*0x9e3779b97f4a7c15)
	return bytes.Repeat(number[:], measuredMessage/8+1)[:measuredMessage]
}

// startStream has from write to to every so often until stop is closed. Both
// goroutines end when the connections are closed.
func startStream(from, to net.Conn, every time.Duration, stop <-chan struct{}) *stream {
	s := &stream{wrote: make(chan int, 1)}
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				s.wrote <- n
				return
			case <-tick.C:
			}
			if _, err := from.Write(measuredBytes(n)); err != nil {
				s.fail(err)
				return
			}
		}
	}()
	go func() {
		b := make([]byte, measuredMessage)
		for n := 0; ; n++ {
			if _, err := io.ReadFull(to, b); err != nil {
				s.fail(err)
				return
			}
			if !bytes.Equal(b, measuredBytes(n)) {
				s.fail(fmt.Errorf("message %d is another than was sent", n))
				return
			}
			s.mu.Lock()
			s.at = append(s.at, time.Now())
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// result is how many messages have arrived, and what went wrong.
func (s *stream) result() (got int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at), s.err
}

// first is when something arrived first after a time; zero: not yet.
func (s *stream) first(after time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.at, after, time.Time.Compare)
	if i == len(s.at) {
		return time.Time{}
	}
	return s.at[i]
}

// silence is the longest time without an arrival from a time on.
func (s *stream) silence(from time.Time) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.at, from, time.Time.Compare)
	for i = max(i, 1); i < len(s.at); i++ {
		longest = max(longest, s.at[i].Sub(s.at[i-1]))
	}
	return longest
}

// TestMeasuredMoves prints the silence of each kind of move on real sockets, for
// the table in docs/mobility.md. What is asserted does not depend on how fast the
// machine is: the encapsulation, that no IKE message is needed, that one connection
// lives through it all and brings every byte in order. Run it with -parallel 1 for
// figures.
func TestMeasuredMoves(t *testing.T) {
	for _, r := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
		t.Run(r.String(), func(t *testing.T) {
			t.Parallel()
			measureMoves(t, r)
		})
	}
}

func measureMoves(t *testing.T, r time.Duration) {
	ctx := within(t, 4*time.Minute)
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{
		{Name: "wifi", NAT: netns.KeepPorts, Delay: r / 2},
		{Name: "cell", NAT: netns.RandomPorts, Delay: r / 2},
		{Name: "office", NAT: netns.KeepPorts, Firewall: netns.TCPOnly, Delay: r / 2},
		{Name: "hotel", NAT: netns.RandomPorts, Firewall: netns.TLSOnly, Delay: r / 2},
	}})
	// The far end of the connection stays with this test.
	accepted, over := make(chan net.Conn, 1), make(chan struct{})
	n.Target.Serve(echoAddress, func(c net.Conn) { accepted <- c; <-over })
	defer close(over)
	c := startClient(t, startServer(t, n), n.Clients[0])
	near, err := c.DialContext(ctx, "tcp", echoAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far := <-accepted
	every := r / 20
	stop := make(chan struct{})
	up, down := startStream(near, far, every, stop), startStream(far, near, every, stop)

	laptop := n.Clients[0]
	settled := func(encapsulation, access string) status {
		t.Helper()
		from := laptop.Addresses(access)[0].String() + ":"
		return c.await(t, ctx, "connected by "+encapsulation+" in "+access, func(s status) bool {
			return s.State == "connected" && s.Path.Encapsulation == encapsulation && strings.HasPrefix(s.Path.Local, from)
		})
	}
	// outlive waits until both directions have brought something that was sent
	// well after a time.
	outlive := func(at time.Time) {
		t.Helper()
		for up.first(at.Add(4*r)).IsZero() || down.first(at.Add(4*r)).IsZero() {
			for name, s := range map[string]*stream{"up": up, "down": down} {
				if got, err := s.result(); err != nil {
					t.Fatalf("%s: after %d messages: %v", name, got, err)
				}
			}
			select {
			case <-ctx.Done():
				t.Fatal("the streams do not go on")
			case <-time.After(r):
			}
		}
	}
	rounds := func(d time.Duration) float64 { return max(0, float64(d)/float64(r)) }
	at := "wifi"
	before := settled("udp", at)
	for _, e := range []struct {
		name, to, encapsulation string
		outage                  time.Duration // data is awaited from its end on
		overlap                 bool
		block                   bool
	}{
		{name: "move, UDP passes", to: "cell", encapsulation: "udp"},
		{name: "move, only TCP passes", to: "office", encapsulation: "tcp"},
		{name: "network back after 0.5 s", to: "wifi", encapsulation: "udp", outage: 500 * time.Millisecond},
		{name: "move, only TLS passes", to: "hotel", encapsulation: "websocket"},
		{name: "network back after 5 s", to: "cell", encapsulation: "udp", outage: 5 * time.Second},
		{name: "second network up, first one lost", to: "wifi", encapsulation: "udp", overlap: true},
		{name: "UDP blocked in place", to: "wifi", encapsulation: "tcp", block: true},
	} {
		outlive(time.Now())
		start := time.Now()
		var back time.Time
		switch {
		case e.block:
			n.Access[0].SetFirewall(netns.TCPOnly)
		case e.overlap:
			laptop.Attach(e.to)
			c.await(t, ctx, "a standby in "+e.to, func(s status) bool { return s.Standby != nil })
			outlive(time.Now())
			start = time.Now()
			laptop.Detach(at)
			laptop.Prefer(e.to)
		case e.outage > 0:
			laptop.Detach(at)
			time.Sleep(e.outage) // as long as the table says
			back = time.Now()
			laptop.Attach(e.to)
			laptop.Prefer(e.to)
		default:
			laptop.Move(e.to, netns.Hard)
		}
		at = e.to
		now := settled(e.encapsulation, at)
		outlive(time.Now())
		u, d := up.silence(start)-every, down.silence(start)-every
		if !back.IsZero() {
			u, d = up.first(back).Sub(back), down.first(back).Sub(back)
		}
		t.Logf("R = %v | %-34s | %5.2f / %5.2f | %s", r, e.name, rounds(u), rounds(d), e.encapsulation)
		if now.IKESent != before.IKESent || now.IKEReceived != before.IKEReceived {
			t.Errorf("%s: IKE messages: %s\nbefore: %s", e.name, now, before)
		}
	}
	t.Logf("R = %v: %d timers of the client's TCP ran out", r, c.status(t).TCPTimeouts)
	close(stop)
	for name, s := range map[string]*stream{"up": up, "down": down} {
		sent := -1
		for got := 0; got != sent; {
			select {
			case sent = <-s.wrote:
			case <-time.After(r):
			case <-ctx.Done():
				t.Fatalf("%s: %d of %d messages have arrived", name, got, sent)
			}
			var err error
			if got, err = s.result(); err != nil {
				t.Fatalf("%s: after %d messages: %v", name, got, err)
			}
		}
	}
}
