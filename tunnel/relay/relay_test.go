package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// duplex is one end of two pipes; unlike net.Pipe it closes by halves.
type duplex struct {
	net.Conn // reads
	w        net.Conn
}

func newDuplex() (a, b *duplex) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	return &duplex{r1, w2}, &duplex{r2, w1}
}

func (d *duplex) Write(b []byte) (int, error) { return d.w.Write(b) }
func (d *duplex) CloseWrite() error           { return d.w.Close() }
func (d *duplex) Close() error                { return errors.Join(d.Conn.Close(), d.w.Close()) }

// A direction that stays open alone lives as long as it brings something.
func TestHalfClosedIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, a := newDuplex()
		b, target := newDuplex()
		began := time.Now()
		done := make(chan struct{})
		go func() { Join(a, b); close(done) }()

		time.Sleep(24 * time.Hour) // both open: no limit
		_ = app.CloseWrite()
		if _, err := io.ReadAll(target); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			time.Sleep(HalfClosedIdle - time.Second)
			if _, err := target.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := app.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		<-done
		if got, want := time.Since(began), 24*time.Hour+11*HalfClosedIdle-10*time.Second; got != want {
			t.Errorf("the relay ended after %v, want %v", got, want)
		}
		if _, err := app.Read(make([]byte, 1)); err == nil {
			t.Error("the application's connection is still open")
		}
	})
}

// Bytes come through in order whatever the sizes of reads, small and large
// buffers in turn.
func TestJoinKeepsBytes(t *testing.T) {
	app, a := newDuplex()
	b, target := newDuplex()
	done := make(chan struct{})
	go func() { Join(a, b); close(done) }()
	var sent bytes.Buffer
	sizes := []int{1, idleSize, idleSize + 1, 3 * copySize, 10, idleSize - 1, copySize, 0, 5}
	for i, n := range sizes {
		sent.Write(bytes.Repeat([]byte{byte(i)}, n))
	}
	want := sha256.Sum256(sent.Bytes())
	go func() {
		for _, n := range sizes {
			_, _ = app.Write(sent.Next(n))
		}
		_ = app.CloseWrite()
	}()
	got := sha256.New()
	if _, err := io.Copy(got, target); err != nil {
		t.Fatal(err)
	}
	if [32]byte(got.Sum(nil)) != want {
		t.Error("bytes are altered")
	}
	_ = target.Close()
	<-done
}
