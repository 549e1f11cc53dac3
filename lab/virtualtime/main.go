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
// With -wallclock it prints the path of a file for the Go command's option
// -overlay instead. In the runtime that this makes, the time in bubbles has a
// monotonic reading, as it has everywhere else, and a wall clock that a test can set
// as an administrator does. Tests that do so have the tag wallclock:
//
//	go test -modfile=$(go run ./lab/virtualtime) -overlay=$(go run ./lab/virtualtime -wallclock) -tags virtualtime,wallclock ./...
//
// It costs a build of the standard library, so it is for those tests alone.
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
	wall := flags.Bool("wallclock", false, "print the path of an overlay with a wall clock that tests can set")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintln(stderr, "virtualtime: takes no arguments")
		return 2
	}
	make := prepare
	if *wall {
		make = prepareOverlay
	}
	path, err := make(*dir)
	if err != nil {
		fmt.Fprintln(stderr, "virtualtime:", err)
		return 1
	}
	fmt.Fprintln(stdout, path)
	return 0
}

// folder is dir, or the one in the cache.
func folder(dir string) (string, error) {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder, or give -dir: %w", err)
		}
		dir = filepath.Join(cache, "godwit", "virtualtime")
	}
	return filepath.Abs(dir)
}

// prepare makes what is missing below dir and returns the alternative go.mod.
func prepare(dir string) (modfile string, err error) {
	if dir, err = folder(dir); err != nil {
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
