//go:build !linux

package netwatch

import "time"

func openSleep() (*Watcher, error) {
	started := time.Now()
	slept := wallJump(time.Now, func() time.Duration { return time.Since(started) })
	return sleep(sleepEvery, leastClockJump, slept, nil, func() error { return nil }), nil
}
