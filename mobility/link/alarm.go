package link

import (
	"sync"
	"sync/atomic"
	"time"
)

// alarms are what the alarms of a link share: an end, after which none goes off.
type alarms struct {
	mu      sync.Mutex
	stopped bool
	set     []*alarm // that have a timer
	running sync.WaitGroup
}

// An alarm runs a function some time after it was set, on a goroutine of its own
// and never twice at a time. The function may set it again. What comes while it
// is set costs an atomic operation, so it may be asked for with each packet.
type alarm struct {
	of *alarms
	f  func()

	pending atomic.Bool // set
	timer   *time.Timer
	busy    bool
	next    time.Duration // was set while the function ran; 0: not
}

// soonest keeps alarms out of the past.
const soonest = time.Microsecond

// in sets the alarm to d from now, unless it is set.
func (a *alarm) in(d time.Duration) {
	if !a.pending.Swap(true) {
		a.move(d)
	}
}

// move sets the alarm to d from now, whether it was set before or not.
func (a *alarm) move(d time.Duration) {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.pending.Store(true)
	if a.next = max(d, soonest); !a.busy {
		a.start()
	}
}

// start starts the timer; the caller holds mu.
func (a *alarm) start() {
	switch {
	case a.of.stopped:
	case a.timer == nil:
		a.timer = time.AfterFunc(a.next, a.run)
		a.of.set = append(a.of.set, a)
	default:
		a.timer.Reset(a.next)
	}
	a.next = 0
}

func (a *alarm) run() {
	a.of.mu.Lock()
	if a.of.stopped || a.busy || !a.pending.Load() {
		a.of.mu.Unlock()
		return
	}
	a.busy = true
	a.pending.Store(false)
	a.of.running.Add(1)
	a.of.mu.Unlock()
	defer a.of.running.Done()
	a.f()
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	if a.busy = false; a.next > 0 {
		a.start()
	}
}

// launch runs f on a goroutine that stop waits for.
func (as *alarms) launch(f func()) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if !as.stopped {
		as.running.Go(f)
	}
}

// stop has no alarm go off any more and waits for those that run.
func (as *alarms) stop() {
	as.mu.Lock()
	as.stopped = true
	for _, a := range as.set {
		a.timer.Stop()
	}
	as.mu.Unlock()
	as.running.Wait()
}
