package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// tcpPair is a connection over loopback.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	for _, c := range []net.Conn{c, d} {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// around hides what is below, as the proxy's connections do.
type around struct{ *net.TCPConn }

func (w around) Passes() net.Conn { return w.TCPConn }

// What breaks off in the middle does not end as if it were complete, and what came
// before is not lost, however slowly it is read.
func TestBreakIsToldAfterWhatCame(t *testing.T) {
	app, a := tcpPair(t)
	b, target := tcpPair(t)
	_ = app.SetReadBuffer(64 << 10)
	_ = a.SetWriteBuffer(2 << 20)
	done := make(chan struct{})
	go func() { Join(around{a}, b); close(done) }()
	want := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	if _, err := target.Write(want); err != nil {
		t.Fatal(err)
	}
	awaitDelivered(target) // a reset would drop what is on its way to the relay
	_ = target.SetLinger(0)
	target.Close()
	got, err := io.ReadAll(app)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stream ends with %v, want a reset", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived of %d", len(got), len(want))
	}
	<-done
}

// An answer that is complete arrives, although the rest of the question is not
// wanted.
func TestCompleteAnswerToHalfAQuestion(t *testing.T) {
	app, a := tcpPair(t)
	b, target := tcpPair(t)
	done := make(chan struct{})
	go func() { Join(a, b); close(done) }()
	want := bytes.Repeat([]byte("answer"), 50_000)
	go func() {
		_, _ = target.Write(want)
		_ = target.CloseWrite()
		_, _ = io.CopyN(io.Discard, target, 1<<20)
		awaitDelivered(target)
		_ = target.SetLinger(0)
		target.Close()
	}()
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		for {
			if _, err := app.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(app, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the answer is cut: %v", err)
	}
	<-uploaded
	<-done
}
