package warm

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// a far end that takes a second to dial.
type far struct {
	dials, open atomic.Int64
	fail        atomic.Bool
}

type conn struct {
	net.Conn
	far *far
}

func (c *conn) Close() error { c.far.open.Add(-1); return nil }

func (f *far) dial(ctx context.Context) (net.Conn, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.dials.Add(1)
	if f.fail.Load() {
		return nil, errors.New("refused")
	}
	f.open.Add(1)
	return &conn{far: f}, nil
}

// took is how long Take makes its caller wait.
func took(t *testing.T, p *Pool) time.Duration {
	began := time.Now()
	c, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	return time.Since(began)
}

func TestNobodyWaitsWhoComesAfterTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := New(2, f.dial)
		p.Fill()
		time.Sleep(2 * time.Second)
		for i := range 20 {
			if d := took(t, p); d != 0 {
				t.Errorf("stream %d waited %v", i, d)
			}
			time.Sleep(2 * time.Second)
		}
		// Eight at once: some wait, but the next eight do not.
		for range 8 {
			took(t, p)
		}
		time.Sleep(2 * time.Second)
		for i := range 8 {
			if d := took(t, p); d != 0 {
				t.Errorf("stream %d of the second burst waited %v", i, d)
			}
		}
		p.Close()
		if n := f.open.Load(); n != 0 {
			t.Errorf("%d connections left open", n)
		}
	})
}

func TestShrinksToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := New(2, f.dial)
		for range 20 {
			took(t, p)
		}
		time.Sleep(5 * time.Second)
		if n := f.open.Load(); n < 4 || n > MaxSpare {
			t.Errorf("%d ready after a burst", n)
		}
		time.Sleep(IdleAfter - 10*time.Second)
		if n := f.open.Load(); n != 2 {
			t.Errorf("%d ready in quiet times, want 2", n)
		}
		time.Sleep(IdleAfter)
		if n := f.open.Load(); n != 0 {
			t.Errorf("%d ready when nobody asked for long, want 0", n)
		}
		p.Close()
	})
}

func TestFlushAndFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{}
		p := New(2, f.dial)
		p.Fill()
		p.Flush() // while they are being opened
		time.Sleep(2 * time.Second)
		if n := f.open.Load(); n != 0 {
			t.Errorf("%d connections of before Flush are kept", n)
		}
		p.Fill()
		time.Sleep(2 * time.Second)
		p.Flush()
		if n := f.open.Load(); n != 0 {
			t.Errorf("%d connections survived Flush", n)
		}
		f.fail.Store(true)
		before := f.dials.Load()
		if _, err := p.Take(t.Context()); err == nil {
			t.Error("no error from a far end that refuses")
		}
		time.Sleep(time.Hour)
		if n := f.dials.Load() - before; n > 1+MaxSpare {
			t.Errorf("%d dials to a far end that refuses, with nobody asking", n)
		}
		p.Close()
		if _, err := p.Take(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
