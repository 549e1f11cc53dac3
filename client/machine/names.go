package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// namesMark begins a resolv.conf of ours.
const namesMark = "# Written by godwit client run"

// namesKept begins the line that says where the state is.
const namesKept = "# What stood here is kept in "

// maxNames bounds a resolv.conf, in bytes.
const maxNames = 1 << 20

// planNames reads the resolv.conf at path and says what to put in its place. state
// is the file of the state, for whoever reads ours. A file that a process of ours
// has left behind counts as what it had replaced, which before tells.
func planNames(path, state string, servers []netip.Addr, before *NamesFile) (*NamesFile, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		real, err = path, nil
		if to, lerr := os.Readlink(path); lerr == nil {
			// A link to a file that is to come.
			if real = to; !filepath.IsAbs(to) {
				real = filepath.Join(filepath.Dir(path), to)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("name servers: %w", err)
	}
	n := &NamesFile{Path: real, Mode: 0o644}
	info, err := os.Stat(real)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		n.Missing = true
	case err != nil:
		return nil, fmt.Errorf("name servers: %w", err)
	case info.Size() > maxNames || !info.Mode().IsRegular():
		return nil, fmt.Errorf("name servers: %s is not a file of up to 1 MiB", real)
	default:
		if n.Old, err = os.ReadFile(real); err != nil {
			return nil, fmt.Errorf("name servers: %w", err)
		}
		n.Mode = info.Mode().Perm()
	}
	if before != nil && before.Path == real && bytes.Equal(n.Old, before.New) {
		n.Old, n.Mode, n.Missing = before.Old, before.Mode, before.Missing
	} else if bytes.HasPrefix(n.Old, []byte(namesMark)) {
		return nil, fmt.Errorf("name servers: %s is of another client of this machine: stop that one, or run godwit client cleanup for the folder that the file names", real)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, which leads all of this machine through a tunnel.\n", namesMark)
	fmt.Fprintf(&b, namesKept+"%s\n# and comes back when it ends, or by godwit client cleanup --dir %s\n", state, filepath.Dir(state))
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	// An outage may be longer than the ten seconds that programs have by default.
	b.WriteString("options timeout:5 attempts:5\n")
	n.New = b.Bytes()
	return n, nil
}

// apply puts ours in its place.
func (n *NamesFile) apply() error {
	if err := putFile(n.Path, n.New, n.Mode); err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	return nil
}

// undo puts back what stood there, unless somebody else has written meanwhile:
// then what is there now is what is wanted. It reports whether it was left.
func (n *NamesFile) undo() (left bool, err error) {
	now, err := os.ReadFile(n.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return !n.Missing, nil // who removed it had a reason
	case err != nil:
		return false, fmt.Errorf("name servers: %w", err)
	case bytes.Equal(now, n.Old) && !n.Missing:
		return false, nil
	case !bytes.Equal(now, n.New) && !half(now, n.New) && !half(now, n.Old):
		return true, nil
	case n.Missing:
		err = os.Remove(n.Path)
		if errors.Is(err, syscall.EBUSY) {
			err = os.WriteFile(n.Path, nil, n.Mode)
		}
	default:
		err = putFile(n.Path, n.Old, n.Mode)
	}
	if err != nil {
		return false, fmt.Errorf("name servers: %w", err)
	}
	return false, nil
}

// half reports that b is ours, written in place by a process that was killed
// meanwhile.
func half(b, ours []byte) bool {
	return len(b) < len(ours) && bytes.HasPrefix(ours, b)
}

// putFile replaces a file as a whole, or in place where another is mounted on it,
// as in containers.
func putFile(path string, b []byte, mode fs.FileMode) error {
	err := replaceFile(path, b, mode)
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		if info, serr := os.Stat(path); serr == nil && info.Mode().IsRegular() {
			return os.WriteFile(path, b, mode)
		}
	}
	return err
}

// keptIn gives the file of the state that a resolv.conf of ours names; empty if it
// is none of ours.
func keptIn(b []byte) string {
	if !bytes.HasPrefix(b, []byte(namesMark)) {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if file, ok := strings.CutPrefix(line, namesKept); ok {
			return strings.TrimSuffix(file, "\n")
		}
	}
	return ""
}

// nameServers reads the servers of a resolv.conf(5).
func nameServers(b []byte) (servers []netip.Addr) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && len(servers) < maxServers {
			servers = append(servers, a)
		}
	}
	return servers
}

// maxServers bounds the name servers that are listened to.
const maxServers = 16
