// Command virtualtime makes gVisor's stack usable in testing/synctest bubbles.
//
// A bubble's clock moves on only when all its goroutines are durably blocked.
// gVisor parks its TCP goroutines by itself, through the runtime's gopark, with
// the wait reason of a plain select, which a bubble does not count. This
// command copies the module from the module cache to a cache folder of its own
// and changes that one constant in the copy to the reason "select (durable)"
// of the Go release in use. It prints the path of an alternative go.mod that
// points there, so that
//
//	go test -modfile=$(go run ./lab/virtualtime) -tags virtualtime ./...
//
// runs the tests in bubbles. What users get is always built with the module as
// it is.
//
// # Rules for tests in bubbles with the stack
//
// Make the stacks inside the bubble and close them before it ends: a bubble
// waits for all its goroutines, and the stack's end with Close alone. Timers
// that are still pending then do no harm, and neither do the packet pools that
// bubbles share.
//
// Delay packets with one goroutine a direction that sleeps until the oldest is
// due. Timers of time.AfterFunc that run out at the same instant run in any
// order, so that a stream of packets arrives shuffled, and TCP crawls.
//
// Durations are exact, but which of several goroutines runs first at one
// instant is not: assert times and what was received, not the number of packets.
//
// # Limitations
//
// The copy leaves out gVisor's commands and its own tests.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("virtualtime", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "folder for the copy (default: godwit/virtualtime in the user's cache folder)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintln(stderr, "virtualtime: takes no arguments")
		return 2
	}
	modfile, err := prepare(*dir)
	if err != nil {
		fmt.Fprintln(stderr, "virtualtime:", err)
		return 1
	}
	fmt.Fprintln(stdout, modfile)
	return 0
}

// prepare makes what is missing below dir and returns the alternative go.mod.
func prepare(dir string) (modfile string, err error) {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder, or give -dir: %w", err)
		}
		dir = filepath.Join(cache, "godwit", "virtualtime")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	env, err := readEnv()
	if err != nil {
		return "", err
	}
	reasons, err := readWaitReasons(filepath.Join(env.goroot, "src", "runtime", "runtime2.go"))
	if err != nil {
		return "", fmt.Errorf("%s: %w", env.version, err)
	}
	copied, err := copyModule(dir, env.module, reasons)
	if err != nil {
		return "", fmt.Errorf("copy %s: %w", env.module.dir, err)
	}
	return writeModfile(dir, env.gomod, copied)
}
