package netns

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// namespaces is where ip netns keeps names, and overlays where it looks for
// files that replace those of /etc in a namespace (ip-netns(8)).
const (
	namespaces = "/run/netns"
	overlays   = "/etc/netns"
)

// A Lab is a set of namespaces, wires and processes that live as long as one
// test. Its methods end the test when something cannot be built, and so are
// called from the test's own goroutine.
type Lab struct {
	t      testing.TB
	prefix string
	dir    string
	hosts  []*Host

	// spawn runs functions on one thread that lives as long as the lab: the
	// kernel ties a child's parent-death signal to the thread that forked it.
	spawn chan func()
	files int
	mu    sync.Mutex // guards files
}

// NewLab makes an empty lab and removes what crashed runs left behind. It ends
// the test if the process is not root.
func NewLab(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root: run the tests as root, or without the tag netns")
	}
	sweep(t)
	l := &Lab{
		t: t,
		// The pid lets a later run see whether this one is still alive.
		prefix: fmt.Sprintf("gw%dr%04x-", os.Getpid(), rand.N(0x10000)),
		dir:    t.ArtifactDir(),
		spawn:  make(chan func()),
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range l.spawn {
			f()
		}
	}()
	// Cleanups run last to first, so processes and wires, which register
	// theirs later, are gone by the time that the namespaces go.
	t.Cleanup(func() {
		close(l.spawn)
		<-gone
		for _, h := range l.hosts {
			h.nl.Close()
			h.ns.Close()
			if err := remove(h.NS); err != nil {
				t.Errorf("remove namespace %s: %v", h.NS, err)
			}
		}
	})
	return l
}

// Dir is the directory for logs and captures; see testing.T.ArtifactDir.
func (l *Lab) Dir() string { return l.dir }

// file gives the path of a new file in Dir for something called label.
func (l *Lab) file(label, suffix string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files++
	return filepath.Join(l.dir, fmt.Sprintf("%02d-%s%s", l.files, label, suffix))
}

var ours = regexp.MustCompile(`^gw(\d+)r[0-9a-f]{4}-`)

// sweep removes the namespaces of runs whose process is gone, and kills what
// still runs in them.
func sweep(t testing.TB) {
	entries, err := os.ReadDir(namespaces)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("list namespaces: %v", err)
	}
	for _, e := range entries {
		m := ours.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil || pid == os.Getpid() || syscall.Kill(pid, 0) == nil {
			continue
		}
		// Two sweepers may meet, so that the other one was faster is no error.
		if err := remove(e.Name()); err != nil && exists(e.Name()) {
			t.Logf("sweep namespace %s: %v", e.Name(), err)
		}
	}
}

func exists(ns string) bool {
	_, err := os.Stat(filepath.Join(namespaces, ns))
	return err == nil
}

// remove kills the processes in a namespace of ours by pid and deletes it.
func remove(ns string) error {
	if !ours.MatchString(ns) {
		return fmt.Errorf("%q is not a namespace of the lab", ns)
	}
	pids, err := exec.Command("ip", "netns", "pids", ns).Output()
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, s := range strings.Fields(string(pids)) {
		if pid, err := strconv.Atoi(s); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if err := os.RemoveAll(filepath.Join(overlays, ns)); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
		return fmt.Errorf("ip netns del: %w: %s", err, out)
	}
	return nil
}
