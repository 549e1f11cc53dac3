package main

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const goodRuntime = `package runtime
const (
	waitReasonZero waitReason = iota
	waitReasonSelect // "select"
	waitReasonOther
	waitReasonSynctestSelect
)
var isIdleInSynctest = [9]bool{
	waitReasonSynctestSelect: true,
}
`

func TestReadWaitReasons(t *testing.T) {
	for _, tt := range []struct {
		name, old, new string
		want           waitReasons
		err            string
	}{
		{name: "as in Go 1.26", want: waitReasons{1, 3}},
		{"a reason more", "waitReasonOther\n", "waitReasonOther\nwaitReasonMore\n", waitReasons{1, 4}, ""},
		{"the plain one is gone", "waitReasonSelect ", "waitReasonChoose ", waitReasons{}, "no constant waitReasonSelect any more"},
		{"the durable one is gone", "waitReasonSynctestSelect\n", "waitReasonBubbleSelect\n", waitReasons{}, "no constant waitReasonSynctestSelect any more"},
		{"not counted from zero", "= iota", "= iota + 1", waitReasons{}, "do not count by iota alone"},
		{"a value in between", "waitReasonOther\n", "waitReasonOther = 9\n", waitReasons{}, "do not count by iota alone"},
		{"two names a line", "waitReasonOther\n", "waitReasonOther, waitReasonMore\n", waitReasons{}, "do not count by iota alone"},
		{"no longer durable", "waitReasonSynctestSelect: true", "waitReasonSynctestSelect: false", waitReasons{}, "no longer names waitReasonSynctestSelect"},
		{"no table", "isIdleInSynctest", "isIdle", waitReasons{}, "isIdleInSynctest no longer names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "runtime2.go")
			src := strings.Replace(goodRuntime, tt.old, tt.new, 1)
			if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readWaitReasons(file)
			if got != tt.want || tt.err == "" && err != nil {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
}

// The release in use is one that the command understands.
func TestThisRelease(t *testing.T) {
	file := filepath.Join(goroot(t), "src", "runtime", "runtime2.go")
	r, err := readWaitReasons(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if last, err := iotaOf(f, "waitReasonCleanupWait"); err != nil || r.plain >= r.durable || r.durable > last {
		t.Errorf("got %+v of %d (%v)", r, last, err)
	}
}

func TestPatch(t *testing.T) {
	src := "package sync\n\nconst (\n\tWaitReasonSelect      uint8 = 18 // text\n\tWaitReasonChanReceive uint8 = 19\n)\n"
	got, err := patch([]byte(src), waitReasons{18, 144})
	if want := strings.Replace(src, "18", "144", 1); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := patch([]byte(src), waitReasons{17, 144}); err == nil || !strings.Contains(err.Error(), "not 17") {
		t.Errorf("another release's number: got error %v", err)
	}
	if _, err := patch([]byte("package sync\n"), waitReasons{18, 144}); err == nil || !strings.Contains(err.Error(), "no constant") {
		t.Errorf("no constant: got error %v", err)
	}
}

// Several at once, then once more: one copy, one path, no litter, and the Go
// command takes the result.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	paths := make([]string, 4)
	var all sync.WaitGroup
	for i := range paths {
		all.Go(func() {
			var stdout, stderr bytes.Buffer
			if code := run([]string{"-dir", dir}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
				t.Errorf("exit code %d: %s", code, &stderr)
			}
			paths[i] = strings.TrimSuffix(stdout.String(), "\n")
		})
	}
	all.Wait()
	for _, p := range paths[1:] {
		if p != paths[0] {
			t.Errorf("got %q and %q", p, paths[0])
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("got %v, %v, want the copy and the go.mod alone", entries, err)
	}
	out, err := exec.Command("go", "list", "-modfile="+paths[0], "-f", "{{.Dir}}", "gvisor.dev/gvisor/pkg/sync").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, out)
	}
	got := strings.TrimSpace(string(out))
	if rel, err := filepath.Rel(dir, got); err != nil || strings.HasPrefix(rel, "..") {
		t.Errorf("the alternative go.mod leads to %s", got)
	}
	src, err := os.ReadFile(filepath.Join(got, filepath.Base(constants)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := readWaitReasons(filepath.Join(goroot(t), "src", "runtime", "runtime2.go"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("WaitReasonSelect      uint8 = %d", r.durable); !bytes.Contains(src, []byte(want)) {
		t.Errorf("no %q in %s", want, src)
	}

	// A half-made copy of an interrupted run is not taken for a whole one.
	if err := os.MkdirAll(filepath.Join(dir, "partial-1", "pkg"), 0o755); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"-dir", dir}, &stdout, &stderr); code != 0 || stdout.String() != paths[0]+"\n" {
		t.Errorf("again: exit code %d, %q, %s", code, &stdout, &stderr)
	}
}

// The runtime's file is one that the command understands, and what it makes is
// what the Go command takes in its place.
func TestWallclock(t *testing.T) {
	dir := t.TempDir()
	var paths [2]string
	for i := range paths {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"-dir", dir, "-wallclock"}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Fatalf("exit code %d: %s", code, &stderr)
		}
		paths[i] = strings.TrimSuffix(stdout.String(), "\n")
	}
	if entries, err := os.ReadDir(dir); paths[0] != paths[1] || err != nil || len(entries) != 1 {
		t.Errorf("got %q, %v, %v", paths, entries, err)
	}
	src, err := os.ReadFile(filepath.Join(filepath.Dir(paths[0]), "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "time.go", src, 0); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"package runtime\n", strings.Replace("package runtime\n\n"+bubbleTime+"return sec, nsec, now\n", "now", "then", 1)} {
		if _, err := stepWall([]byte(s)); err == nil || !strings.Contains(err.Error(), "otherwise than in Go 1.26") {
			t.Errorf("%q: error %v", s, err)
		}
	}
	out, err := exec.Command("go", "list", "-overlay="+paths[0], "runtime").CombinedOutput()
	if err != nil {
		t.Errorf("go list: %v: %s", err, out)
	}
}

func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{{"-unknown"}, {"argument"}} {
		var stdout, stderr bytes.Buffer
		if code := run(args, &stdout, &stderr); code != 2 || stdout.Len() > 0 || stderr.Len() == 0 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, &stdout, &stderr)
		}
	}
}

func goroot(t *testing.T) string {
	t.Helper()
	env, err := readEnv()
	if err != nil {
		t.Fatal(err)
	}
	if env.version != runtime.Version() {
		t.Fatalf("the Go command is %s, the test runs with %s", env.version, runtime.Version())
	}
	return env.goroot
}
