package proc

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// line is a /proc/PID/stat with 20 fields.
func line(pid, name string, parent, utime, stime, cutime, cstime int) string {
	s := pid + " (" + name + ") S " + strconv.Itoa(parent) + " 1 1 0 -1 4194560 5 6 7 8"
	for _, v := range []int{utime, stime, cutime, cstime} {
		s += " " + strconv.Itoa(v)
	}
	return s + " 20 0 1 0"
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       Stat
		fails      bool
	}{
		{"plain", line("42", "godwit", 7, 100, 20, 3, 4), Stat{42, 7, 1270 * time.Millisecond}, false},
		{"a name with spaces and parentheses", line("42", "a) S 9 (b", 7, 1, 0, 0, 0), Stat{42, 7, 10 * time.Millisecond}, false},
		{"empty", "", Stat{}, true},
		{"no name", "42 S 7", Stat{}, true},
		{"closed before it opens", "42 ) S (", Stat{}, true},
		{"cut", "42 (godwit) S 7 1 1", Stat{}, true},
		{"no pid", line("x", "godwit", 7, 1, 1, 1, 1), Stat{}, true},
		{"time is no number", line("42", "godwit", 7, 1, 1, 1, 1)[:40] + " x x x x x x x x", Stat{}, true},
	} {
		got, err := ParseStat(tt.line)
		if (err != nil) != tt.fails || !tt.fails && got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus("Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t     300 kB\nVmRSS:\t     200 kB\n")
	if want := (Memory{200 << 10, 300 << 10}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got, err := ParseStatus("Name:\tkthreadd\n"); err != nil || got != (Memory{}) {
		t.Errorf("a kernel thread: %+v, %v", got, err)
	}
	if _, err := ParseStatus("VmRSS:\tmuch kB\n"); err == nil {
		t.Error("a word instead of a number is taken")
	}
}

func TestDescend(t *testing.T) {
	all := []Stat{{PID: 1}, {PID: 10, Parent: 1}, {PID: 11, Parent: 10}, {PID: 12, Parent: 11}, {PID: 20, Parent: 1}, {PID: 21, Parent: 20}}
	for _, tt := range []struct {
		roots, want []int
	}{
		{[]int{10}, []int{10, 11, 12}},
		{[]int{11, 10}, []int{10, 11, 12}}, // each once
		{[]int{12, 20}, []int{12, 20, 21}},
		{[]int{99}, nil},
		{nil, nil},
	} {
		var got []int
		for _, s := range Descend(all, tt.roots...) {
			got = append(got, s.PID)
		}
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("below %v: %v, want %v", tt.roots, got, tt.want)
		}
	}
}

func TestTrees(t *testing.T) {
	dir := t.TempDir()
	write := func(pid, name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, pid, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("5", "stat", line("5", "sshd", 1, 100, 0, 50, 0))
	write("5", "status", "VmHWM:\t10 kB\nVmRSS:\t4 kB\n")
	write("6", "stat", line("6", "sshd", 5, 0, 200, 0, 0))
	write("6", "status", "VmHWM:\t20 kB\nVmRSS:\t8 kB\n")
	write("7", "stat", line("7", "other", 1, 900, 0, 0, 0))
	write("8", "note", "it has ended, so that there is no stat")
	cpu, err := FS(dir).CPU(5)
	if want := 3500 * time.Millisecond; err != nil || cpu != want {
		t.Errorf("processor time %v, %v; want %v", cpu, err, want)
	}
	m, err := FS(dir).Memory(5)
	if want := (Memory{12 << 10, 30 << 10}); err != nil || m != want {
		t.Errorf("memory %+v, %v; want %+v", m, err, want)
	}
	write("5", "clear_refs", "")
	write("6", "clear_refs", "")
	write("7", "clear_refs", "")
	if err := FS(dir).ResetPeak(5); err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[string]string{"5": "5", "6": "5", "7": ""} {
		if b, err := os.ReadFile(filepath.Join(dir, pid, "clear_refs")); err != nil || string(b) != want {
			t.Errorf("clear_refs of %s is %q, %v; want %q", pid, b, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(line("42", "a) (b", 7, 1, 2, 3, 4))
	f.Add("VmRSS:\t 200 kB\n")
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = ParseStat(s)
		_, _ = ParseStatus(s)
	})
}
