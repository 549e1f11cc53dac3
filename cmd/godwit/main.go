// Command godwit keeps connections alive while a machine moves between
// networks. README.md tells how to use it.
//
// This package is thin: commands, flags, exit codes, and the putting together
// of the packages that do the work.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// stopWithin is how long a command may take to end once it is told to. What
// has not ended by then is cut off, so that a supervisor never has to kill.
const stopWithin = 1800 * time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
		time.Sleep(stopWithin)
		fmt.Fprintln(os.Stderr, "godwit: something did not end in time and was cut off")
		os.Exit(0)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
