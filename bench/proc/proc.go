// Package proc reads what processes have cost: processor time and memory of a
// process and all its descendants, from Linux's /proc (proc(5)).
package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ, 100 for programs on
// every architecture that Go has for Linux.
const tick = 10 * time.Millisecond

// A Stat is what one process has used.
type Stat struct {
	PID, Parent int
	// CPU is user and system time, with that of descendants that have ended
	// and were waited for.
	CPU time.Duration
}

// ParseStat reads a line of /proc/PID/stat.
func ParseStat(line string) (Stat, error) {
	// The name, in parentheses, may hold anything, parentheses as well.
	open, closing := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || closing < open {
		return Stat{}, errors.New("no name in parentheses")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
	if err != nil {
		return Stat{}, fmt.Errorf("pid: %w", err)
	}
	// Fields from the third on: state, ppid, …; utime, stime, cutime and
	// cstime are numbers 14 to 17.
	f := strings.Fields(line[closing+1:])
	if len(f) < 15 {
		return Stat{}, fmt.Errorf("%d fields after the name, want 15 or more", len(f))
	}
	s := Stat{PID: pid}
	if s.Parent, err = strconv.Atoi(f[1]); err != nil {
		return Stat{}, fmt.Errorf("ppid: %w", err)
	}
	for _, v := range f[11:15] {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return Stat{}, fmt.Errorf("times: %w", err)
		}
		s.CPU += time.Duration(n) * tick
	}
	return s, nil
}

// A Memory is the resident set of a process in bytes, now and at its peak.
type Memory struct{ Resident, Peak int64 }

// ParseStatus reads the contents of /proc/PID/status. Processes without memory
// (zombies, kernel threads) give zeros.
func ParseStatus(status string) (m Memory, err error) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		var to *int64
		switch key {
		case "VmRSS":
			to = &m.Resident
		case "VmHWM":
			to = &m.Peak
		default:
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("%s: %w", key, err)
		}
		*to = n << 10
	}
	return m, nil
}

// Descend gives the processes among all that are one of roots or descend from
// one, in no order.
func Descend(all []Stat, roots ...int) (tree []Stat) {
	children := map[int][]Stat{}
	var next []Stat
	for _, s := range all {
		children[s.Parent] = append(children[s.Parent], s)
		for _, r := range roots {
			if s.PID == r {
				next = append(next, s)
			}
		}
	}
	seen := map[int]bool{}
	for len(next) > 0 {
		s := next[len(next)-1]
		next = next[:len(next)-1]
		if seen[s.PID] {
			continue // a root below another one
		}
		seen[s.PID] = true
		tree = append(tree, s)
		next = append(next, children[s.PID]...)
	}
	return tree
}

// An FS is where /proc is mounted.
type FS string

// Self is the usual place.
const Self FS = "/proc"

// all reads every process there is; those that end meanwhile are left out.
func (fs FS) all() ([]Stat, error) {
	paths, err := filepath.Glob(filepath.Join(string(fs), "[0-9]*", "stat"))
	if err != nil {
		return nil, err
	}
	var all []Stat
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		s, err := ParseStat(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// CPU gives the processor time that the trees below roots have used.
func (fs FS) CPU(roots ...int) (sum time.Duration, err error) {
	all, err := fs.all()
	for _, s := range Descend(all, roots...) {
		sum += s.CPU
	}
	return sum, err
}

// Memory adds up the memory of the trees below roots. Pages that processes
// share count for each of them; peaks count as if all had theirs at once.
func (fs FS) Memory(roots ...int) (sum Memory, err error) {
	all, err := fs.all()
	for _, s := range Descend(all, roots...) {
		b, err := os.ReadFile(filepath.Join(string(fs), strconv.Itoa(s.PID), "status"))
		if err != nil {
			continue // it has ended
		}
		m, err := ParseStatus(string(b))
		if err != nil {
			return sum, fmt.Errorf("status of %d: %w", s.PID, err)
		}
		sum.Resident += m.Resident
		sum.Peak += m.Peak
	}
	return sum, err
}

// ResetPeak makes the peaks of the trees below roots start from what is
// resident now.
func (fs FS) ResetPeak(roots ...int) error {
	all, err := fs.all()
	for _, s := range Descend(all, roots...) {
		path := filepath.Join(string(fs), strconv.Itoa(s.PID), "clear_refs")
		if e := os.WriteFile(path, []byte("5"), 0); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
