package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/bench/report"
	"github.com/godwit-net/godwit/lab/netns"
)

// openFiles is how many files each process may have open: two for each idle
// stream and some.
const openFiles = 65536

// A bench is a run of measurements.
type bench struct {
	*options
	log    *slog.Logger
	lab    *netns.Lab
	in     *installer
	report *report.Report
	fast   *network
	slow   *network // nil until a test wants it
	lossy  *network // the same
	shared *network // the same
	round  int
}

// measure runs everything that the options ask for. The report is not nil when
// there are figures, whatever else went wrong.
func measure(ctx context.Context, o *options, stderr io.Writer) (r *report.Report, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	b := &bench{options: o, log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))}
	var peers []*peer
	for _, name := range o.peers {
		i := slices.IndexFunc(allPeers(), func(p *peer) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-peers: there is no %q; see -help", name)
		}
		peers = append(peers, allPeers()[i])
	}
	// Setting it explicitly makes it hold for the programs that are started, too.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: openFiles, Max: openFiles}); err != nil {
		b.log.Warn("cannot raise the limit of open files", slog.Any("err", err))
	}
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find a place for programs (-cache): %w", err)
		}
		o.cache = filepath.Join(dir, "godwit-bench")
	}
	if o.cache, err = filepath.Abs(o.cache); err != nil {
		return nil, err
	}
	for _, dir := range []*string{&o.cache, &o.profiles} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(*dir, 0o755); err != nil {
			return nil, err
		}
	}
	if slices.Contains(o.tests, report.Fair) || o.congestion != "" {
		names := []string{o.congestion}
		if slices.Contains(o.tests, report.Fair) {
			names = append(names, report.Cubic, report.BBR)
		}
		undo, err := allow(names...)
		defer undo()
		if err != nil {
			b.log.Warn("some congestion controls cannot be had", slog.Any("err", err))
		}
	}
	b.report = &report.Report{Start: time.Now(), Rounds: o.rounds, Bytes: o.bytes}
	peers, err = b.install(ctx, peers)
	if err != nil {
		return nil, err
	}

	dir, err := os.MkdirTemp("", "godwit-bench-logs")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := &scope{dir: dir}
	defer func() {
		if e := s.close(); e != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", e))
		}
	}()
	err = within(func() (err error) {
		b.lab = netns.NewLab(s)
		if b.fast, err = newNetwork(ctx, b.lab, "fast", o.congestion, 0); err != nil {
			return err
		}
		b.report.Machine = b.machine()
		return b.rounds(ctx, peers)
	})
	if len(b.report.Samples) == 0 {
		return nil, err
	}
	return b.report, err
}

// install makes the peers ready and leaves out those that cannot be had.
func (b *bench) install(ctx context.Context, peers []*peer) (ready []*peer, err error) {
	b.in = &installer{cache: b.cache, log: b.log, programs: map[string]string{}, about: map[string]string{}}
	if slices.ContainsFunc(peers, func(p *peer) bool { return strings.HasPrefix(p.name, report.Base) }) {
		program := b.godwit
		if program == "" {
			if program, b.report.Commit, err = buildGodwit(ctx, b.cache); err != nil {
				return nil, err
			}
		}
		if b.in.programs["godwit"], err = filepath.Abs(program); err != nil {
			return nil, err
		}
	}
	for _, p := range peers {
		entry := report.Peer{Name: p.name, About: p.about}
		if p.install != nil {
			if err := p.install(ctx, b.in); err != nil {
				b.log.Warn("left out", slog.String("peer", p.name), slog.Any("err", err))
				entry.Missing = err.Error()
			}
		}
		if about := b.in.about[p.name]; about != "" {
			entry.About = about
		}
		b.report.Peers = append(b.report.Peers, entry)
		if entry.Missing == "" {
			ready = append(ready, p)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return ready, nil
}

// rounds runs all tests of all peers, round by round. Whoever came first in one
// round comes last in the next: a machine that gets warmer or busier favours
// nobody.
func (b *bench) rounds(ctx context.Context, peers []*peer) error {
	for b.round = 1; b.round <= b.options.rounds; b.round++ {
		for i := range peers {
			p := peers[(i+b.round-1)%len(peers)]
			b.log.Info("measure", slog.Int("round", b.round), slog.String("peer", p.name))
			for _, g := range groups {
				if tests := g.of(b.tests); len(tests) > 0 {
					g.run(b, ctx, p, tests)
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	return nil
}

// add keeps a sample.
func (b *bench) add(p *peer, t report.Test, values map[report.Metric]float64, note string, err error) {
	s := report.Sample{Peer: p.name, Test: t, Round: b.round, Values: values, Note: note}
	if err != nil {
		s.Values, s.Error = nil, err.Error()
		b.log.Warn("failed", slog.String("peer", p.name), slog.String("test", string(t)), slog.Any("err", err))
	} else {
		b.log.Debug("measured", slog.String("peer", p.name), slog.String("test", string(t)), slog.Any("values", values), slog.String("note", note))
	}
	b.report.Samples = append(b.report.Samples, s)
}

// machine describes where this runs.
func (b *bench) machine() report.Machine {
	m := report.Machine{Kernel: "unknown", CPU: "unknown", Cores: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuModel(text)
	}
	// A namespace has its own, and /proc/sys shows that of the reader.
	_ = b.fast.client.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
		m.Congestion = strings.TrimSpace(string(text))
		return err
	})
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(text)); len(f) > 3 {
			m.Load = strings.Join(f[:3], " ")
		}
	}
	return m
}

// cpuModel finds the name of the first processor in /proc/cpuinfo.
func cpuModel(cpuinfo []byte) string {
	for line := range bytes.Lines(cpuinfo) {
		if key, value, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
