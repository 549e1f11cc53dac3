// Package owner runs the one goroutine that owns a protocol's state.
//
// Readers, dialers and timers elsewhere post functions; the owner runs them one
// after the other, each with the time, and after each lets its client act on
// what came of it. So the state needs no lock, and a state machine that takes
// the time as an argument gets it from a single place.
package owner

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Limit is how many posted functions may wait. Beyond it Offer refuses.
const Limit = 4096

// ErrStopped tells that the owner has ended or will not run.
var ErrStopped = errors.New("stopped")

// An Owner runs posted functions. The zero Owner is not usable; see New.
type Owner struct {
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	waiting []func(now time.Time)
	stopped bool
}

// New makes an Owner. Functions may be posted before Run.
func New() *Owner {
	return &Owner{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Post adds f to what will run. It never blocks. It returns false when the
// owner has stopped; f will not run then.
func (o *Owner) Post(f func(now time.Time)) bool { return o.post(f, false) }

// Offer is Post for what the network sends and repeats if need be: it refuses
// when Limit functions wait.
func (o *Owner) Offer(f func(now time.Time)) bool { return o.post(f, true) }

func (o *Owner) post(f func(now time.Time), bounded bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped || bounded && len(o.waiting) >= Limit {
		return false
	}
	o.waiting = append(o.waiting, f)
	if len(o.waiting) == 1 {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// Do posts f and waits until it has run. It must not be called by the owner's
// own functions.
func (o *Owner) Do(ctx context.Context, f func(now time.Time)) error {
	ran := make(chan struct{})
	if !o.Post(func(now time.Time) { f(now); close(ran) }) {
		return ErrStopped
	}
	select {
	case <-ran:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-o.done:
		return ErrStopped
	}
}

// Run runs what is posted until ctx ends. After each batch it calls after,
// which acts on what came of it and returns when it wants to be called next
// though nothing was posted; the zero time means not at all.
func (o *Owner) Run(ctx context.Context, after func(now time.Time) time.Time) {
	defer o.stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		for _, f := range o.take() {
			f(time.Now())
		}
		timer.Stop()
		var expired <-chan time.Time
		if next := after(time.Now()); !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
			expired = timer.C
		}
		select {
		case <-ctx.Done():
		case <-o.wake:
		case <-expired:
		}
	}
}

func (o *Owner) take() []func(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fs := o.waiting
	o.waiting = nil
	return fs
}

func (o *Owner) stop() {
	o.mu.Lock()
	o.stopped = true
	o.waiting = nil
	o.mu.Unlock()
	close(o.done)
}
