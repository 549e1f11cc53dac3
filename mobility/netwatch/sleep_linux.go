package netwatch

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// openSleep compares CLOCK_BOOTTIME, which goes on during sleep, with
// CLOCK_MONOTONIC. The kernel tells at once that there may be something to
// compare, by a timer that is cancelled when the wall clock jumps, as it does on
// resume; see timerfd_create(2), TFD_TIMER_CANCEL_ON_SET.
func openSleep() (*Watcher, error) {
	kick := make(chan struct{}, 1)
	f, err := cancelledTimer()
	if err != nil {
		close(kick) // the ticker does it alone
		return sleep(sleepEvery, leastSleep, slept, kick, func() error { return nil }), nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(kick)
		b := make([]byte, 8)
		for {
			switch _, err := f.Read(b); {
			case errors.Is(err, unix.ECANCELED):
				select {
				case kick <- struct{}{}:
				default:
				}
			case err != nil:
				return // closed
			}
		}
	}()
	return sleep(sleepEvery, leastSleep, slept, kick, func() error {
		err := f.Close()
		<-done
		return err
	}), nil
}

// cancelledTimer is a timer that never runs out, but is cancelled.
func cancelledTimer() (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	never := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(1<<63 - 1))}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "timerfd"), nil
}

// slept is how long the host has been asleep since it was started.
func slept() time.Duration {
	var boot, mono unix.Timespec
	// They fail for unknown clocks only, and then nothing is ever told.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono)
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
	return time.Duration(boot.Nano() - mono.Nano())
}
