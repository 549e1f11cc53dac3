package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/clock"
)

const (
	maxDatagram = 1<<16 - 1
	// flowIdle ends what is served for a source that says nothing (RFC 4787,
	// Section 4.3).
	flowIdle = 5 * time.Minute
	// afterError is the pause after an error that need not be for good: the other
	// end may refuse for now, or the system may be short of something.
	afterError = 50 * time.Millisecond
)

// A Datagrams is a socket that takes datagrams from anybody; its addresses are
// *net.UDPAddr.
type Datagrams interface {
	ReadFrom(b []byte) (int, net.Addr, error)
	WriteTo(b []byte, to net.Addr) (int, error)
}

// Flows leads the datagrams that come to a port somewhere else, and the answers
// back: each source gets a connection of its own.
type Flows struct {
	// Dial opens the connection for one source. An error drops the datagram.
	Dial func() (net.Conn, error)
	// Max bounds the sources that are served at a time; those beyond it are not
	// heard. One that has been silent for five minutes makes room.
	Max int
}

// A flow is one source of datagrams.
type flow struct {
	far  net.Conn
	used atomic.Int64 // by package clock
}

// Serve runs until at is closed, and closes all connections before it returns.
func (f Flows) Serve(at Datagrams) {
	var mu sync.Mutex
	flows := make(map[netip.AddrPort]*flow)
	var wg sync.WaitGroup
	ended := make(chan struct{})
	b := make([]byte, maxDatagram)
	for {
		n, from, err := at.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		udp, ok := from.(*net.UDPAddr)
		if err != nil || !ok {
			time.Sleep(afterError)
			continue
		}
		source := udp.AddrPort()
		mu.Lock()
		one, count := flows[source], len(flows)
		mu.Unlock()
		if one == nil {
			if count >= f.Max {
				continue
			}
			far, err := f.Dial()
			if err != nil {
				continue
			}
			one = &flow{far: far}
			one.used.Store(clock.Now())
			mu.Lock()
			flows[source] = one
			mu.Unlock()
			wg.Go(func() {
				one.answer(at, from, ended)
				mu.Lock()
				delete(flows, source)
				mu.Unlock()
			})
		}
		one.used.Store(clock.Now())
		_, _ = one.far.Write(b[:n]) // datagrams may be lost
	}
	close(ended)
	mu.Lock()
	for _, one := range flows {
		_ = one.far.Close()
	}
	mu.Unlock()
	wg.Wait()
}

// answer brings what comes back to the source until nothing has come either way
// for flowIdle, or until ended.
func (f *flow) answer(at Datagrams, to net.Addr, ended <-chan struct{}) {
	defer f.far.Close()
	b := make([]byte, maxDatagram)
	for {
		_ = f.far.SetReadDeadline(time.Now().Add(flowIdle - clock.Since(f.used.Load())))
		n, err := f.far.Read(b)
		var ne net.Error
		switch {
		case err == nil:
			f.used.Store(clock.Now())
			_, _ = at.WriteTo(b[:n], to)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.As(err, &ne) && ne.Timeout():
			if clock.Since(f.used.Load()) >= flowIdle {
				return
			}
		default:
			select {
			case <-time.After(afterError):
			case <-ended:
				return
			}
		}
	}
}
