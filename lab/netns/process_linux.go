package netns

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Command prepares a program to run in the namespace. The caller runs it, or
// hands it to Lab.Start.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	// ip becomes the program, so the pid is the program's own.
	return exec.Command("ip", append([]string{"netns", "exec", h.NS, name}, args...)...)
}

// Start is Lab.Start of a Command, named after the program.
func (h *Host) Start(name string, args ...string) *Process {
	h.lab.t.Helper()
	return h.lab.Start(h.Name+"-"+name[strings.LastIndexByte(name, '/')+1:], h.Command(name, args...))
}

// A Process is a running program, whose output is kept in memory and in a file
// of the lab's directory.
type Process struct {
	Stdout, Stderr *Output

	label string
	cmd   *exec.Cmd
	done  chan struct{} // closed when it has ended, after err is set
	err   error
}

// Start runs a command until it ends or the test does. Then it and the
// processes of its group are killed, also if the test's process dies.
func (l *Lab) Start(label string, cmd *exec.Cmd) *Process {
	l.t.Helper()
	p := &Process{
		Stdout: l.output(label, ".out"), Stderr: l.output(label, ".err"),
		label: label, cmd: cmd, done: make(chan struct{}),
	}
	cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// A grandchild that holds the pipes must not hold the test.
	cmd.WaitDelay = time.Second
	started := make(chan error)
	l.spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		l.t.Fatalf("start %s: %v", label, err)
	}
	go func() {
		p.err = cmd.Wait()
		p.Stdout.end()
		p.Stderr.end()
		close(p.done)
	}()
	l.t.Cleanup(func() {
		p.Kill()
		if l.t.Failed() {
			l.t.Logf("%s %s\nstdout: %s\nstderr: %s", label, cmd, tail(p.Stdout), tail(p.Stderr))
		}
	})
	return p
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Kill kills the process and its group and waits for its end.
func (p *Process) Kill() {
	select {
	case <-p.done: // its group's number may be another's by now
		return
	default:
	}
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// Wait waits for the end and gives the exit code, or -1 for the end by a
// signal. The error is that of ctx.
func (p *Process) Wait(ctx context.Context) (code int, err error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s goes on: %w", p.label, ctx.Err())
	}
}

// tail gives the end of a long output.
func tail(o *Output) string {
	const most = 6000
	s := o.String()
	if len(s) > most {
		s = "…" + s[len(s)-most:]
	}
	return s
}

// An Output keeps what a process wrote.
type Output struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	file  io.WriteCloser
	ended bool
	more  chan struct{} // closed and replaced at each change
}

func (l *Lab) output(label, suffix string) *Output {
	l.t.Helper()
	f, err := os.Create(l.file(label, suffix))
	if err != nil {
		l.t.Fatal(err)
	}
	return &Output{file: f, more: make(chan struct{})}
}

// Write takes output; it never fails, as that would stop the process.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.file.Write(b)
	o.buf.Write(b)
	close(o.more)
	o.more = make(chan struct{})
	return len(b), nil
}

func (o *Output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.file.Close()
	close(o.more)
	o.more = make(chan struct{})
}

// String is all output so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Expect waits until the output contains text. It fails when the process ends
// or ctx does before that.
func (o *Output) Expect(ctx context.Context, text string) error {
	for {
		o.mu.Lock()
		found, ended, more := bytes.Contains(o.buf.Bytes(), []byte(text)), o.ended, o.more
		o.mu.Unlock()
		switch {
		case found:
			return nil
		case ended:
			return fmt.Errorf("ended without writing %q", text)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("did not write %q: %w", text, ctx.Err())
		}
	}
}
