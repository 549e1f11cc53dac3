package relay

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// inner is a stream that reads and writes where it keeps bytes.
type inner struct {
	*duplex
	left    []byte
	feeds   atomic.Int64
	drained atomic.Int64
}

func (i *inner) Feed(r io.Reader, n int) (int, error) {
	i.feeds.Add(1)
	b := make([]byte, n)
	n, err := r.Read(b)
	if err == nil {
		_, err = i.Write(b[:n])
	}
	return n, err
}

func (i *inner) Drain(w io.Writer) (int, error) {
	if len(i.left) == 0 {
		b := make([]byte, 1<<20)
		n, err := i.Read(b)
		if i.left = b[:n]; err != nil {
			return 0, err
		}
	}
	n, err := w.Write(i.left)
	i.left = i.left[n:]
	i.drained.Add(int64(n))
	if n > 0 {
		err = nil
	}
	return n, err
}

// wrapped is in the way of the first read.
type wrapped struct {
	net.Conn
	passes atomic.Bool
}

func (w *wrapped) Passes() net.Conn {
	if !w.passes.Load() {
		return nil
	}
	return w.Conn
}

func (w *wrapped) Read(b []byte) (int, error) {
	w.passes.Store(true)
	return w.Conn.Read(b)
}

func (w *wrapped) CloseWrite() error { return w.Conn.(CloseWriter).CloseWrite() }

// sockets gives both ends of a connection.
func sockets(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// Between a socket and a stream of the stack bytes go without a buffer, once
// nothing is in between, and arrive as they left, by an application that reads
// slowly too; ends pass one by one.
func TestJoinDirectly(t *testing.T) {
	app, socket := sockets(t)
	near, far := newDuplex()
	in := &inner{duplex: near}
	done := make(chan struct{})
	go func() { Join(&wrapped{Conn: socket}, &wrapped{Conn: in}); close(done) }()

	const size = 20 << 20
	up, down := bytes.Repeat([]byte("upwards"), size/7), bytes.Repeat([]byte("downward"), size/8)
	go func() {
		_, _ = app.Write(up)
		_ = app.CloseWrite()
	}()
	go func() {
		_, _ = far.Write(down)
		_ = far.CloseWrite()
	}()
	got := make(chan [32]byte)
	go func() {
		h := sha256.New()
		_, _ = io.Copy(h, far)
		got <- [32]byte(h.Sum(nil))
	}()
	if <-got != sha256.Sum256(up) {
		t.Error("what went up is altered")
	}
	h := sha256.New() // only now: the socket has been full for a while
	if _, err := io.Copy(h, app); err != nil || [32]byte(h.Sum(nil)) != sha256.Sum256(down) {
		t.Errorf("what went down is altered: %v", err)
	}
	<-done
	if in.feeds.Load() == 0 || in.drained.Load() < size/2 {
		t.Errorf("%d feeds, %d bytes drained: there was a buffer", in.feeds.Load(), in.drained.Load())
	}
	_ = app.Close()
}

// An application that resets its connection, or goes away, ends both.
func TestJoinDirectlyEnds(t *testing.T) {
	for name, ends := range map[string]func(app *net.TCPConn, far *duplex){
		"reset while idle": func(app *net.TCPConn, _ *duplex) { _ = app.SetLinger(0); _ = app.Close() },
		"reset while full": func(app *net.TCPConn, far *duplex) {
			go func() { _, _ = far.Write(make([]byte, 64<<20)) }()
			_, _ = io.ReadFull(app, make([]byte, 1<<20))
			_ = app.SetLinger(0)
			_ = app.Close()
		},
		"other end closed": func(_ *net.TCPConn, far *duplex) { _ = far.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			app, socket := sockets(t)
			near, far := newDuplex()
			done := make(chan struct{})
			go func() { Join(socket, &inner{duplex: near}); close(done) }()
			ends(app, far)
			if name == "other end closed" {
				if _, err := app.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the application reads %v", err)
				}
				_ = app.Close()
			}
			<-done
			_ = far.Close()
		})
	}
}
