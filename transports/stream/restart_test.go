package stream

import (
	"net"
	"testing"
	"time"
)

func TestPaceBeginsAnew(t *testing.T) {
	const ms = time.Millisecond
	now := time.Now()
	rate, ok, restarts := uint64(0), true, 0
	p := &pace{much: now, rate: func() (uint64, bool) { return rate, ok }, restart: func() { restarts++ }}
	// send writes at about bytes a second.
	send := func(what string, bytes int, d time.Duration, seen uint64, want int) {
		t.Helper()
		rate, restarts = seen, 0
		for end := now.Add(d); now.Before(end); now = now.Add(10 * ms) {
			p.writes(bytes/100, now)
		}
		if restarts != want {
			t.Errorf("%s: %d restarts, want %d", what, restarts, want)
		}
	}
	send("a new connection", 10e6, 300*ms, 5e6, 0)
	send("acknowledgements", 400e3, 2*time.Second, 100e3, 0)
	send("much for the first time since", 10e6, 2*time.Second, 100e3, 1)
	send("more of it", 10e6, 2*time.Second, 10e6, 0)
	now = now.Add(10 * time.Second)
	send("after a pause, with the rate in mind", 10e6, 2*time.Second, 9e6, 0)
	send("acknowledgements again", 400e3, 2*time.Second, 100e3, 0)
	send("after them", 10e6, 2*time.Second, 100e3, 1)
	now = now.Add(10 * time.Second)
	send("a path that has become slow for good", 10e6, 100*ms, 110e3, 0)
	now = now.Add(10 * time.Second)
	ok = false
	send("another congestion control", 10e6, 2*time.Second, 0, 0)
}

// Sockets have the same congestion control after a restart as before.
func TestRestart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	Tune(c)
	p := newPace(connected{c}, time.Now())
	if p.rate == nil {
		t.Fatal("a socket that is not one")
	}
	_, before := p.rate()
	if before {
		p.restart()
	}
	if _, after := p.rate(); after != before {
		t.Errorf("BBR is in use after the restart: %v, before: %v", after, before)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if p := newPace(connected{near}, time.Now()); p.rate != nil {
		t.Error("a pipe has a rate")
	}
}

type connected struct{ net.Conn }

func (c connected) NetConn() net.Conn        { return c.Conn }
func (connected) WriteFrames([]byte) error   { return nil }
func (connected) ReadFrames(r *Reader) error { return nil }
