package machine

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var far = []netip.Addr{Far4}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A file is replaced and comes back byte for byte, with its mode; a link to it
// stays a link.
func TestNamesComeBack(t *testing.T) {
	const before = "# mine\nsearch example.org\nnameserver 192.0.2.53\noptions edns0" // no line break at the end
	dir := t.TempDir()
	real, link, state := filepath.Join(dir, "run", "resolv.conf"), filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "machine.json")
	if err := os.Mkdir(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, real, before)
	if err := os.Symlink("run/resolv.conf", link); err != nil {
		t.Fatal(err)
	}
	n, err := planNames(link, state, far, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &State{Names: n, Plan: Plan{Table: 7, Rules: []Rule{{Family: 4, Priority: 1, To: netip.MustParsePrefix("10.0.0.0/8")}, {Family: 6, Mark: 1}}}}
	if err := s.write(state); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the state's mode is %v, %v", info.Mode(), err)
	}
	if err := n.apply(); err != nil {
		t.Fatal(err)
	}
	if got := nameServers([]byte(read(t, link))); !slices.Equal(got, far) {
		t.Errorf("name servers %v", got)
	}
	if got := keptIn([]byte(read(t, link))); got != state {
		t.Errorf("the state is said to be in %q, not %q", got, state)
	}
	// A process that was killed and began again does not take its own file for
	// the one to keep.
	back, err := ReadState(state)
	if err != nil || !slices.Equal(back.Plan.Rules, s.Plan.Rules) {
		t.Fatalf("state %+v, %v", back, err)
	}
	again, err := planNames(link, state, far, back.Names)
	if err != nil || string(again.Old) != before {
		t.Errorf("planned anew: %q, %v", again.Old, err)
	}
	if _, err := planNames(link, state, far, nil); err == nil || !strings.Contains(err.Error(), "another client") {
		t.Errorf("a file of another process: %v", err)
	}
	for range 2 { // it may be undone twice
		if left, err := back.Names.undo(); left || err != nil {
			t.Errorf("undo: left %v, %v", left, err)
		}
	}
	if got := read(t, real); got != before {
		t.Errorf("it came back as %q", got)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	if to, err := os.Readlink(link); err != nil || to != "run/resolv.conf" {
		t.Errorf("the link is %q, %v", to, err)
	}
}

func TestNamesOfOthersStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, file, "nameserver 192.0.2.53\n")
	n, err := planNames(file, "machine.json", far, nil)
	if err == nil {
		err = n.apply()
	}
	if err != nil {
		t.Fatal(err)
	}
	const theirs = "nameserver 203.0.113.1\n"
	write(t, file, theirs)
	if left, err := n.undo(); !left || err != nil || read(t, file) != theirs {
		t.Errorf("left %v, %v: %q", left, err, read(t, file))
	}
	// Killed while it wrote in place.
	write(t, file, string(n.New[:len(n.New)/2]))
	if left, err := n.undo(); left || err != nil || read(t, file) != "nameserver 192.0.2.53\n" {
		t.Errorf("half written: left %v, %v: %q", left, err, read(t, file))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if left, err := n.undo(); !left || err != nil {
		t.Errorf("removed meanwhile: left %v, %v", left, err)
	}
	// Where there was no file there is none afterwards.
	if n, err = planNames(file, "machine.json", far, nil); err == nil {
		err = n.apply()
	}
	if err != nil {
		t.Fatal(err)
	}
	if left, err := n.undo(); left || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a file is left: %v", err)
	}
}

func TestStateOfOthers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "machine.json")
	if s, err := ReadState(file); s != nil || err != nil {
		t.Errorf("no file: %v, %v", s, err)
	}
	for text, want := range map[string]string{"{": "read what was changed", `{"version":99}`: "another version", "[]": "read what was changed"} {
		write(t, file, text)
		if s, err := ReadState(file); s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", text, s, err)
		}
	}
}
