// Package warm keeps connections ready before anybody asks for one, so that
// who asks does not wait for a handshake.
//
// How many is learnt: each time that somebody finds none ready the number
// doubles, and when nobody asks for a while it shrinks again, to none in the
// end, as each costs the other end some memory.
package warm

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// DefaultSpare is how many connections are ready at first.
	DefaultSpare = 2
	// MaxSpare bounds how many are ready at any time; a browser opens about as
	// many for one page.
	MaxSpare = 16
	// ShrinkAfter is how long nobody may ask before only as many as at first are kept.
	ShrinkAfter = 30 * time.Second
	// IdleAfter is how long nobody may ask before the last ones are closed.
	IdleAfter = 2 * time.Minute

	dialTimeout = 10 * time.Second
)

// A Pool holds the connections. Its methods may be called from several
// goroutines.
type Pool struct {
	dial  func(ctx context.Context) (net.Conn, error)
	spare int
	ctx   context.Context
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu         sync.Mutex
	ready      []net.Conn // oldest first
	dialling   int
	want       int
	generation uint64 // of what ready holds; counts Flush
	asked      time.Time
	timer      *time.Timer // nil: not armed
	closed     bool
}

// New makes a pool that opens connections by dial, spare of them to start with
// (up to MaxSpare; 0 keeps none ready). Nothing is dialled before Fill or Take.
func New(spare int, dial func(ctx context.Context) (net.Conn, error)) *Pool {
	p := &Pool{dial: dial, spare: min(max(spare, 0), MaxSpare)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// Take gives a connection, one that is ready if there is any, and otherwise
// dials. The error is dial's, or net.ErrClosed after Close.
func (p *Pool) Take(ctx context.Context) (net.Conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, net.ErrClosed
	}
	p.asked = time.Now()
	var c net.Conn
	if n := len(p.ready); n > 0 {
		c = p.ready[0]
		p.ready[0] = nil
		p.ready = p.ready[1:]
	} else if p.spare > 0 {
		p.want = min(max(2*p.want, p.spare), MaxSpare)
	}
	p.want = max(p.want, p.spare)
	p.fill()
	p.mu.Unlock()
	if c != nil {
		return c, nil
	}
	return p.dial(ctx)
}

// Fill opens what is missing, as if somebody had asked just now.
func (p *Pool) Fill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = time.Now()
	p.want = max(p.want, p.spare)
	p.fill()
}

// Flush closes what is ready: the far end has forgotten it.
func (p *Pool) Flush() {
	p.mu.Lock()
	old := p.ready
	p.ready = nil
	p.generation++
	p.mu.Unlock()
	closeAll(old)
}

// Close closes what is ready and waits for what is being opened.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.stop()
	p.Flush()
	p.tasks.Wait()
}

// fill runs with mu held.
func (p *Pool) fill() {
	if p.closed {
		return
	}
	for ; len(p.ready)+p.dialling < p.want; p.dialling++ {
		generation := p.generation
		p.tasks.Go(func() { p.open(generation) })
	}
	if p.want > 0 && p.timer == nil {
		p.timer = time.AfterFunc(ShrinkAfter, p.shrink)
	}
}

// open adds one connection. One that cannot be opened is not tried again
// before somebody asks.
func (p *Pool) open(generation uint64) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	c, err := p.dial(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialling--
	switch {
	case err != nil:
	case p.closed || generation != p.generation:
		_ = c.Close()
	default:
		p.ready = append(p.ready, c)
	}
}

// shrink closes what nobody seems to need.
func (p *Pool) shrink() {
	p.mu.Lock()
	p.timer = nil
	if p.closed {
		p.mu.Unlock()
		return
	}
	switch idle := time.Since(p.asked); {
	case idle >= IdleAfter:
		p.want = 0
	case idle >= ShrinkAfter:
		p.want = p.spare
	}
	var old []net.Conn
	if n := len(p.ready) - p.want; n > 0 {
		old = append(old, p.ready[:n]...)
		p.ready = append([]net.Conn(nil), p.ready[n:]...)
	}
	if p.want > 0 {
		p.timer = time.AfterFunc(ShrinkAfter, p.shrink)
	}
	p.mu.Unlock()
	closeAll(old)
}

func closeAll(cs []net.Conn) {
	for _, c := range cs {
		_ = c.Close()
	}
}
