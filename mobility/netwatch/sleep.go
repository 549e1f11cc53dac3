package netwatch

import "time"

// sleepEvery is how often a host is asked whether it has slept that does not
// tell, and leastSleep what counts as sleep; clocks that are set are compared
// where there is none that tells of sleep alone, and those are less exact.
const (
	sleepEvery     = time.Second
	leastSleep     = 100 * time.Millisecond
	leastClockJump = 3 * time.Second
)

// Sleep tells when the host has resumed from sleep. The error is the system's.
func Sleep() (*Watcher, error) { return openSleep() }

// sleep compares what slept gives, the time in all that the host has been
// asleep: at each kick, and in any case from time to time.
func sleep(every, least time.Duration, slept func() time.Duration, kick <-chan struct{}, stopKick func() error) *Watcher {
	stop := make(chan struct{})
	last := slept()
	return start(func(w *Watcher) {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
			case _, ok := <-kick:
				if !ok {
					kick = nil
				}
			}
			now := slept()
			if now-last >= least {
				w.tell(ReasonResume)
			}
			last = now
		}
	}, func() error {
		close(stop)
		return stopKick()
	})
}

// wallJump makes a clock of sleep from the wall clock and a monotonic one,
// which stands still meanwhile on most systems. Setting the clock forward looks
// like sleep; it costs one registration.
func wallJump(wall func() time.Time, mono func() time.Duration) func() time.Duration {
	first, from := wall().Round(0), mono()
	return func() time.Duration { return wall().Round(0).Sub(first) - (mono() - from) }
}
