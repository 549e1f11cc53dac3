// Command bench runs godwit beside its peers, in network namespaces that it
// makes itself, and tells what each reaches and what it costs: throughput,
// processor time, memory, latency. README.md has the details.
//
// # Limitations
//
// Measurements need Linux and root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godwit-net/godwit/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings as arguments; it gives the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && strings.HasPrefix(args[0], "@") {
		if err := part(ctx, args, stdout); err != nil {
			fmt.Fprintf(stderr, "bench %s: %v\n", args[0], err)
			return 1
		}
		return 0
	}
	o, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	r, err := measure(ctx, o, stderr)
	if r != nil {
		if e := publish(r, o, stdout); e != nil {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// publish shows a report in all the ways that were asked for.
func publish(r *report.Report, o *options, stdout io.Writer) error {
	err := r.WriteTable(stdout)
	for _, out := range []struct {
		file  string
		write func(io.Writer) error
	}{{o.json, r.WriteJSON}, {o.chart, r.WriteChart}} {
		if out.file == "" {
			continue
		}
		var b strings.Builder
		e := out.write(&b)
		if e == nil {
			e = os.WriteFile(out.file, []byte(b.String()), 0o644)
		}
		err = errors.Join(err, e)
	}
	return err
}

// options are what the flags say.
type options struct {
	peers       []string
	tests       []report.Test
	rounds      int
	bytes       uint64 // of each transfer
	lossyBytes  uint64 // the same, for the test lossy
	limit       time.Duration
	fairTime    time.Duration // of each transfer of the test fair
	idleStreams int
	idleClients int
	each        int
	roundTrip   time.Duration
	congestion  string // "" leaves the kernel's default
	godwit      string // a program that is built already
	cache       string
	json, chart string
	profiles    string
	verbose     bool
}

// allTests are the tests there are, in the order in which they run.
var allTests = []report.Test{
	report.Down, report.Up, report.Down8, report.Up8, report.Ping, report.Busy,
	report.Streams, report.First, report.Clients, report.Lossy, report.Fair,
}

const usage = `Runs godwit beside its peers in network namespaces and compares them. Needs Linux and root.

    go run ./bench                                       everything, three rounds: about half an hour
    go run ./bench -peers godwit,none -tests down,up -bytes 256M -rounds 1
    go run ./bench -json bench.json -chart docs/performance.svg

Peers: godwit (over udp), godwit-tcp, godwit-websocket, godwit-http; none (a SOCKS relay and no tunnel: the limit),
       socks (plain SOCKS5 at the server), ssh, xray, chisel, hysteria, wireproxy. They are built or installed when first used.
       encapsulations stands for godwit over each of its encapsulations.
Tests: down, up        one stream
       down8, up8      eight streams at once
       ping            round trips per second of 64 bytes
       busy            latency beside a bulk download, and alone
       streams         memory of idle streams
       first           time to the first byte on a long path, in round trips
       clients         memory of idle clients at the server (godwit only)
       lossy           one stream each way over a long link that loses packets
       fair            a stream beside others outside of the tunnel, and beside one in another, on a long link

Flags:
`

// parseOptions reads the flags.
func parseOptions(args []string, stderr io.Writer) (*options, error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
	}
	o := &options{}
	peers := f.String("peers", defaultPeers, "`names` of peers, separated by commas")
	tests := f.String("tests", join(allTests), "`names` of tests, separated by commas")
	bytes := f.String("bytes", "512M", "`size` of each transfer; K, M and G are powers of 1000")
	lossy := f.String("lossybytes", "30M", "`size` of each transfer of the test lossy: the start counts less in a larger one")
	f.IntVar(&o.rounds, "rounds", 3, "`number` of rounds; peers take turns within each")
	f.DurationVar(&o.limit, "limit", 30*time.Second, "longest `time` of one transfer; what went until then counts")
	f.DurationVar(&o.fairTime, "fairtime", 15*time.Second, "`time` that streams share the link in the test fair; there are 24 cases")
	f.IntVar(&o.idleStreams, "streams", 1000, "`number` of idle streams for the test streams")
	f.IntVar(&o.idleClients, "clients", 200, "`number` of idle clients for the test clients")
	f.IntVar(&o.each, "each", 0, "`number` of idle streams that each of these clients holds")
	f.DurationVar(&o.roundTrip, "rtt", 50*time.Millisecond, "round trip `time` of the path for the test first")
	f.StringVar(&o.congestion, "congestion", "", "congestion control `algorithm` of the kernel's TCP, for all (default the kernel's own)")
	f.StringVar(&o.godwit, "godwit", "", "`program` to measure as godwit instead of one built from this repository")
	f.StringVar(&o.cache, "cache", "", "`folder` for the programs of peers (default in the user's cache folder)")
	f.StringVar(&o.json, "json", "", "`file` for all figures")
	f.StringVar(&o.chart, "chart", "", "`file` for a chart in SVG, such as docs/performance.svg")
	f.StringVar(&o.profiles, "profile", "", "`folder` for CPU profiles of godwit; they cost some speed")
	f.BoolVar(&o.verbose, "v", false, "show each figure as it comes")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag; see -help", f.Arg(0))
	}
	var err error
	if o.bytes, err = parseSize(*bytes); err != nil {
		return nil, fmt.Errorf("-bytes: %w", err)
	}
	if o.lossyBytes, err = parseSize(*lossy); err != nil {
		return nil, fmt.Errorf("-lossybytes: %w", err)
	}
	for _, name := range split(*peers) {
		if name == "encapsulations" {
			o.peers = append(o.peers, "godwit", "godwit-tcp", "godwit-websocket", "godwit-http")
			continue
		}
		o.peers = append(o.peers, name)
	}
	for _, name := range split(*tests) {
		if !slices.Contains(allTests, report.Test(name)) {
			return nil, fmt.Errorf("-tests: %q is none of %s", name, join(allTests))
		}
		o.tests = append(o.tests, report.Test(name))
	}
	for _, n := range []struct {
		flag        string
		value, most int
	}{{"-rounds", o.rounds, 100}, {"-streams", o.idleStreams, 8000}, {"-clients", o.idleClients, 20000}} {
		if n.value < 1 || n.value > n.most {
			return nil, fmt.Errorf("%s: %d is not between 1 and %d", n.flag, n.value, n.most)
		}
	}
	if o.limit < time.Second || o.limit > time.Hour {
		return nil, fmt.Errorf("-limit: %s is not between 1s and 1h", o.limit)
	}
	if o.fairTime < time.Second || o.fairTime > time.Hour {
		return nil, fmt.Errorf("-fairtime: %s is not between 1s and 1h", o.fairTime)
	}
	if o.roundTrip < 2*time.Millisecond || o.roundTrip > 2*time.Second {
		return nil, fmt.Errorf("-rtt: %s is not between 2ms and 2s", o.roundTrip)
	}
	return o, nil
}

func join(tests []report.Test) string {
	var names []string
	for _, t := range tests {
		names = append(names, string(t))
	}
	return strings.Join(names, ",")
}

func split(s string) (names []string) {
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// parseSize reads a number of bytes such as 512M.
func parseSize(s string) (uint64, error) {
	unit := uint64(1)
	digits := strings.TrimRight(s, "KMGkmg")
	if len(s)-len(digits) == 1 {
		unit = map[byte]uint64{'K': 1e3, 'M': 1e6, 'G': 1e9}[s[len(s)-1]&^0x20]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || len(s)-len(digits) > 1 || n == 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size such as 512M", s)
	}
	return n * unit, nil
}
