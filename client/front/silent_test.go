package front

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener for connections made with net.Pipe.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return noBind }

// Applications that open a connection and say nothing, or half of something,
// are let go.
func TestSilentApplications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		ln := make(pipes)
		done := make(chan error)
		go func() { done <- s.Serve(ln) }()
		for request, want := range map[string]time.Duration{
			"":                       firstByteTimeout,
			"\x05":                   handshakeTimeout,
			"\x05\x01\x00\x05\x01":   handshakeTimeout,
			"GET / HTTP/1.1\r\nHost": handshakeTimeout,
		} {
			c, far := net.Pipe()
			began := time.Now()
			ln <- far
			if request != "" {
				go func() { _, _ = io.WriteString(c, request) }()
			}
			_, _ = io.Copy(io.Discard, c)
			if got := time.Since(began); got != want {
				t.Errorf("after %q the connection lives for %v, want %v", request, got, want)
			}
		}
		close(ln)
		_ = s.Close()
		<-done
	})
}

// FuzzServe sends any bytes to the port.
func FuzzServe(f *testing.F) {
	f.Add(append(socksRequest(1, "x.invalid", 80), "data"...))
	f.Add([]byte("\x05\x02\x00\x02\x05\x01\x00\x04 0123456789abcdef\x00\x50"))
	f.Add([]byte("CONNECT x.invalid:80 HTTP/1.1\r\nHost: x\r\n\r\ndata"))
	f.Add([]byte("GET http://x.invalid/ HTTP/1.1\r\nHost: x\r\n\r\nGET /proxy.pac HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("\x04\x01"))
	f.Add(socksRequest(1, "x.invalid]\x00", 80))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Config{Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			if _, _, err := net.SplitHostPort(address); err != nil {
				t.Errorf("dial %q: %v", address, err)
			}
			c, far := net.Pipe()
			go func() { _, _ = io.Copy(far, far); _ = far.Close() }()
			return c, nil
		}})
		ln := make(pipes)
		done := make(chan error)
		go func() { done <- s.Serve(ln) }()
		c, far := net.Pipe()
		ln <- far
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_, _ = c.Write(b)
		_ = c.Close()
		close(ln)
		_ = s.Close()
		<-done
	})
}
