package main

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A result is what a command left.
type result struct {
	code           int
	stdout, stderr string
}

// godwit runs a command to its end.
func godwit(t *testing.T, args ...string) result {
	t.Helper()
	return godwitReading(t, "", args...)
}

// godwitReading is godwit with something on standard input.
func godwitReading(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// wantError checks for one line "godwit: what, where: what to do" on stderr
// with these parts, and nothing on stdout.
func (r result) wantError(t *testing.T, code int, parts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if r.stdout != "" {
		t.Errorf("on stdout: %q", r.stdout)
	}
	if !strings.HasPrefix(r.stderr, "godwit: ") || strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("not one line that begins with godwit: %q", r.stderr)
	}
	for _, p := range parts {
		if !strings.Contains(r.stderr, p) {
			t.Errorf("%q does not contain %q", r.stderr, p)
		}
	}
}

// wantOK checks for success without a word on stderr.
func (r result) wantOK(t *testing.T) {
	t.Helper()
	if r.code != exitOK || r.stderr != "" {
		t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
	}
}

// A running command has not ended.
type running struct {
	t      *testing.T
	cancel context.CancelFunc
	stdin  *io.PipeWriter
	lines  chan string // of stdout
	stderr *safeBuffer
	end    chan int
}

// start starts a command that goes on; it is stopped at the end of the test.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	inR, inW := io.Pipe()
	lines := &lineWriter{lines: make(chan string, 1000)}
	r := &running{t: t, cancel: cancel, stdin: inW, lines: lines.lines, stderr: &safeBuffer{}, end: make(chan int, 1)}
	go func() {
		r.end <- run(ctx, args, inR, lines, r.stderr)
		close(lines.lines)
	}()
	t.Cleanup(func() {
		cancel()
		_ = inW.Close()
		for range r.lines { // until the command has ended
		}
		if t.Failed() {
			t.Logf("godwit %s said:\n%s", strings.Join(args, " "), r.stderr)
		}
	})
	return r
}

// line gives the next line of stdout.
func (r *running) line() string {
	r.t.Helper()
	l, ok := <-r.lines
	if !ok {
		r.t.Fatalf("the command ended: %s", r.stderr)
	}
	return l
}

// lineWith gives the next line of stdout that holds part.
func (r *running) lineWith(part string) string {
	r.t.Helper()
	for {
		if l := r.line(); strings.Contains(l, part) {
			return l
		}
	}
}

// stop asks the command to end, as SIGTERM does, and gives its exit code.
func (r *running) stop() int {
	r.cancel()
	return <-r.end
}

// A lineWriter passes on whole lines.
type lineWriter struct {
	rest  []byte
	lines chan string
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.lines <- string(line)
		w.rest = rest
	}
}

// A safeBuffer may be read while it is written.
type safeBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // closed and replaced by each Write; nil until awaited
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// await waits until part was written.
func (s *safeBuffer) await(t *testing.T, part string) {
	t.Helper()
	for {
		s.mu.Lock()
		if strings.Contains(s.b.String(), part) {
			s.mu.Unlock()
			return
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("%q was never written, but %q", part, s)
		}
	}
}

// initServer sets up a server and gives its folder.
func initServer(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "server")
	godwit(t, append([]string{"server", "init", "--dir", dir, "--endpoint", "127.0.0.1:4443"}, args...)...).wantOK(t)
	return dir
}

// invite gives the link of a new client.
func invite(t *testing.T, serverDir, name string) string {
	t.Helper()
	r := godwit(t, "server", "invite", name, "--dir", serverDir)
	r.wantOK(t)
	return strings.TrimSpace(r.stdout)
}

// join sets up a client and gives its folder.
func join(t *testing.T, link string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "client")
	godwit(t, "client", "join", link, "--dir", dir, "--offline").wantOK(t)
	return dir
}
