package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godwit-net/godwit/tunnel"
)

// A Machine is the machine as it is led through the tunnel.
type Machine struct {
	c      Config
	log    *slog.Logger
	device *device
	f      *forwarder
	stack  *tunnel.Stack
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	failed chan error

	mu    sync.Mutex
	state *State // nil: nothing is changed
	taken bool
}

// New makes the device. It changes nothing else; Take does.
func New(c Config) (*Machine, error) {
	if err := c.defaults(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Machine{c: c, log: c.Logger, cancel: cancel, failed: make(chan error, 1)}
	var err error
	if m.device, err = openDevice(c.Device); err != nil {
		cancel()
		return nil, err
	}
	m.f = newForwarder(ctx, c)
	if m.stack, err = newStack(c, m.f, m.device.output); err != nil {
		cancel()
		return nil, errors.Join(err, m.device.close())
	}
	m.f.stack = m.stack
	m.tasks.Go(func() {
		if err := m.device.run(m.stack.Input); err != nil {
			m.failed <- err
		}
	})
	return m, nil
}

// Failed gives the error for which the device has ended by itself.
func (m *Machine) Failed() <-chan error { return m.failed }

// Take leads the machine's traffic into the device. If that fails nothing is
// changed.
func (m *Machine) Take() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.taken {
		return nil
	}
	before, err := ReadState(m.c.File)
	if err != nil {
		return err
	}
	if before != nil && !(before.KillSwitch && m.c.KillSwitch) {
		if err := m.undo(before); err != nil {
			return fmt.Errorf("restore what the last run had changed: %w", err)
		}
		before = nil
	}
	facts, err := lookAround(before)
	if err != nil {
		return err
	}
	plan, err := MakePlan(m.c.Settings, facts)
	if err != nil {
		return err
	}
	s := &State{Device: m.c.Device, KillSwitch: m.c.KillSwitch, Plan: plan}
	resolved := usesResolved()
	var old *NamesFile
	if before != nil {
		// Closed all the time: what is new is added before what was goes.
		old = before.Names
		s.Plan.Rules = merge(s.Plan.Rules, before.Plan.Rules)
		s.Plan.Sysctls = merge(before.Plan.Sysctls, s.Plan.Sysctls)
	}
	if !m.c.NoDNS && !resolved {
		servers := []netip.Addr{Far4}
		if s.Names, err = planNames(namesPath, m.c.File, servers, old); err != nil {
			return err
		}
	} else if old != nil {
		if _, err := old.undo(); err != nil {
			return err
		}
	}
	if err := s.write(m.c.File); err != nil {
		return err
	}
	m.state = s
	if err := m.take(plan, facts, resolved); err != nil {
		return errors.Join(err, m.restore())
	}
	if before != nil {
		for _, r := range before.Plan.Rules {
			if !slices.Contains(plan.Rules, r) {
				err = errors.Join(err, r.remove())
			}
		}
		if err != nil {
			return errors.Join(err, m.restore())
		}
	}
	m.taken = true
	m.log.LogAttrs(m.f.ctx, slog.LevelInfo, "the whole machine goes through the tunnel",
		slog.String("device", m.c.Device), slog.Bool("lan", !m.c.NoLAN), slog.String("dns", m.c.dns()), slog.Bool("kill_switch", m.c.KillSwitch))
	return nil
}

// merge gives what is in a or b, a's first.
func merge[T comparable](a, b []T) []T {
	all := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}

func (m *Machine) take(plan Plan, facts Facts, resolved bool) error {
	if err := setUpDevice(m.c.Settings, facts.Families); err != nil {
		return err
	}
	if err := plan.apply(m.c.Device); err != nil {
		return err
	}
	if m.c.NoDNS {
		return nil
	}
	if m.state.Names != nil {
		return m.state.Names.apply()
	}
	if resolved {
		// It belongs to the device and ends with it.
		if err := tellResolved(m.c.Device); err != nil {
			m.log.LogAttrs(m.f.ctx, slog.LevelWarn, "systemd-resolved does not listen; questions to its name servers are led through the tunnel all the same", slog.Any("err", err))
		}
	}
	return nil
}

// usesResolved reports whether systemd-resolved answers the machine's questions.
func usesResolved() bool {
	real, err := filepath.EvalSymlinks(namesPath)
	if err != nil {
		return false
	}
	if strings.HasPrefix(real, "/run/systemd/resolve/") {
		return true
	}
	if _, err := os.Stat(resolvedPath); err != nil {
		return false
	}
	b, err := os.ReadFile(real)
	return err == nil && bytes.Contains(b, []byte("nameserver 127.0.0.53\n"))
}

// tellResolved has systemd-resolved ask for all names by the device.
func tellResolved(device string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, args := range [][]string{{"dns", device, Far4.String()}, {"domain", device, "~."}, {"default-route", device, "yes"}} {
		if out, err := exec.CommandContext(ctx, "resolvectl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("resolvectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// Status tells what it does.
func (m *Machine) Status() Status {
	m.mu.Lock()
	taken := m.taken
	m.mu.Unlock()
	m.f.mu.Lock()
	flows := len(m.f.flows)
	m.f.mu.Unlock()
	return Status{
		Device: m.c.Device, MTU: m.c.MTU, LAN: !m.c.NoLAN, DNS: m.c.dns(), KillSwitch: m.c.KillSwitch,
		Taken: taken, Streams: int(m.f.streams.Load()), Flows: flows, Queries: m.f.names.asked.Load(),
	}
}

// Close puts the machine back as it was and ends the device. With KillSwitch and
// failed it leaves the machine closed, until the next Take or Cleanup.
func (m *Machine) Close(failed bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if !failed || !m.c.KillSwitch || !m.taken {
		err = m.restore()
	}
	m.cancel()
	// The stack's last packets go into the device, and nothing comes out of it
	// into a stack that is closed.
	cerr := m.device.close()
	m.tasks.Wait()
	m.stack.Close()
	m.f.close()
	return errors.Join(err, cerr)
}

// restore undoes what was done; mu is held.
func (m *Machine) restore() error {
	s := m.state
	if s == nil {
		return nil
	}
	m.state, m.taken = nil, false
	return m.undo(s)
}

func (m *Machine) undo(s *State) error { return undo(s, m.c.File, m.log) }

func undo(s *State, file string, log *slog.Logger) error {
	err := s.Plan.undo()
	if s.Names != nil {
		left, nerr := s.Names.undo()
		if left {
			log.LogAttrs(context.Background(), slog.LevelWarn, "somebody else has changed the name servers meanwhile: left as they are", slog.String("file", s.Names.Path))
		}
		err = errors.Join(err, nerr)
	}
	if err != nil {
		return fmt.Errorf("put the machine back as it was: %w", err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put the machine back as it was: %w", err)
	}
	return nil
}

// Cleanup undoes what a process has left that did not end by Close. It reports
// whether there was anything.
func Cleanup(file string, logger *slog.Logger) (bool, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s, err := ReadState(file)
	if err != nil || s == nil {
		return false, err
	}
	return true, undo(s, file, logger)
}
