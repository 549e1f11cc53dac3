//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// hangups gives the requests to read the settings anew, until stop.
func hangups() (requests <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
