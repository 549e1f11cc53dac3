//go:build virtualtime

package handover

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pattern is what streams carry, over and over. Its length is a prime, so that
// bytes that are missing, repeated or swapped cannot go unseen.
var pattern = sync.OnceValue(func() []byte {
	b := make([]byte, 65521)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return append(b, b...)
})

const period = 65521

// A flow is one direction of a connection through the tunnel, checked byte by
// byte where it arrives.
type flow struct {
	t        *testing.T
	name     string
	stop     chan struct{} // ends the writer, which closes its direction
	done     chan struct{} // closed when the reader has seen the end
	sent     atomic.Int64
	mu       sync.Mutex
	arrivals []arrival
}

// An arrival is a read that gave something.
type arrival struct {
	at    time.Time
	total int64 // bytes so far
}

// A pace is how a flow's writer writes. The zero value writes as fast as the
// connection takes it.
type pace struct {
	size  int           // bytes a write
	every time.Duration // between writes
	warm  time.Duration // how long it writes three times as much at first
}

// pair connects through the tunnel to a port of the target.
func (m *mobile) pair(port uint16) (near, far net.Conn) {
	t := m.w.t
	at := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.10"), port)
	ln, err := m.w.target.ListenTCP(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = m.client.Dial(t.Context(), "tcp", at.String()); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// newFlow has from write to to, from now on.
func newFlow(t *testing.T, name string, from, to net.Conn, p pace) *flow {
	f := &flow{t: t, name: name, stop: make(chan struct{}), done: make(chan struct{})}
	go f.write(from, p)
	go f.read(to)
	return f
}

func (f *flow) write(c net.Conn, p pace) {
	size := 32 << 10
	var tick <-chan time.Time
	start := time.Now()
	if p.every > 0 {
		t := time.NewTicker(p.every)
		defer t.Stop()
		tick = t.C
	}
	for off := int64(0); ; {
		if tick != nil {
			size = p.size
			if time.Since(start) < p.warm {
				size = min(3*size, period)
			}
		}
		select {
		case <-f.stop:
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				f.t.Errorf("%s: close: %v", f.name, err)
			}
			return
		default:
		}
		if tick != nil {
			select {
			case <-f.stop:
				continue
			case <-tick:
			}
		}
		at := int(off % period)
		n, err := c.Write(pattern()[at : at+size])
		off += int64(n)
		f.sent.Store(off)
		if err != nil {
			f.t.Errorf("%s: write after %d bytes: %v", f.name, off, err)
			return
		}
	}
}

func (f *flow) read(c net.Conn) {
	defer close(f.done)
	b := make([]byte, period)
	var off int64
	for {
		n, err := c.Read(b)
		at := int(off % period)
		if !bytes.Equal(b[:n], pattern()[at:at+n]) {
			f.t.Errorf("%s: bytes after %d are others than were sent", f.name, off)
			return
		}
		off += int64(n)
		f.mu.Lock()
		f.arrivals = append(f.arrivals, arrival{time.Now(), off})
		f.mu.Unlock()
		if err == io.EOF {
			return
		}
		if err != nil {
			f.t.Errorf("%s: read after %d bytes: %v", f.name, off, err)
			return
		}
	}
}

// end stops the writer and waits until everything written has arrived.
func (f *flow) end() {
	close(f.stop)
	<-f.done
	if got := f.total(); got != f.sent.Load() {
		f.t.Errorf("%s: %d of %d bytes have arrived", f.name, got, f.sent.Load())
	}
}

// total is how much has arrived.
func (f *flow) total() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.arrivals) == 0 {
		return 0
	}
	return f.arrivals[len(f.arrivals)-1].total
}

// between is how many bytes arrived after from and not after to.
func (f *flow) between(from, to time.Time) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first, last int64
	for _, a := range f.arrivals {
		if !a.at.After(from) {
			first = a.total
		}
		if !a.at.After(to) {
			last = a.total
		}
	}
	return last - first
}

// first is when something arrived first after a time; zero: never.
func (f *flow) first(after time.Time) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.arrivals {
		if a.at.After(after) {
			return a.at
		}
	}
	return time.Time{}
}

// silence is the longest time without an arrival in a span of time, the
// spaces before its first and after its last arrival included.
func (f *flow) silence(from, to time.Time) (longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := from
	for _, a := range f.arrivals {
		if a.at.Before(from) {
			continue
		}
		if a.at.After(to) {
			break
		}
		longest = max(longest, a.at.Sub(last))
		last = a.at
	}
	return max(longest, to.Sub(last))
}

func (f *flow) String() string {
	return fmt.Sprintf("%s: %d bytes sent, %d arrived", f.name, f.sent.Load(), f.total())
}
