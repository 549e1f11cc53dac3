//go:build virtualtime

package handover

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client/front"
	"github.com/godwit-net/godwit/lab"
)

// echo answers each message at the target's port.
func (w *world) echo(port uint16) netip.AddrPort {
	at := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.10"), port)
	ln, err := w.target.ListenTCP(w.ctx, at)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			w.tasks.Go(func() { _, _ = io.Copy(c, c); c.Close() })
		}
	})
	context.AfterFunc(w.ctx, func() { ln.Close() })
	return at
}

// firstByte opens a stream, sends a message and waits for its first byte back.
func (m *mobile) firstByte(r time.Duration, address string) (float64, error) {
	start := lab.NewClock(r)
	c, err := m.client.Dial(m.w.ctx, "tcp", address)
	if err != nil {
		return start.Rounds(), err
	}
	defer c.Close()
	message := []byte("first bytes")
	if _, err := c.Write(message); err != nil {
		return start.Rounds(), err
	}
	got := make([]byte, len(message))
	_, err = io.ReadFull(c, got[:1])
	rounds := start.Rounds()
	if err == nil {
		if _, err = io.ReadFull(c, got[1:]); err == nil && !bytes.Equal(got, message) {
			err = errors.New("another message came back")
		}
	}
	return rounds, err
}

// TestOpeningAStreamCostsNothing: the target's own time is nearly zero here.
// The first stream to a destination waits for its answer before it sends; later
// ones send at once.
func TestOpeningAStreamCostsNothing(t *testing.T) {
	for _, r := range []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond} {
		t.Run(r.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, r)
				defer w.close()
				address := w.echo(7).String()
				m := w.join("laptop", 10)
				<-m.client.Ready()
				settle()
				for i := range 20 {
					rounds, err := m.firstByte(r, address)
					if err != nil {
						t.Fatalf("stream %d: %v", i, err)
					}
					least, most := 1.0, 1.1
					if i == 0 {
						least, most = 2.0, 2.1
					}
					if rounds < least || rounds > most {
						t.Errorf("stream %d: first byte after %.3f round trips, want %v to %v", i, rounds, least, most)
					}
				}
				// After a move what was ready is still good.
				m.host.Move("if0", w.cell)
				settle()
				if rounds, err := m.firstByte(r, address); err != nil || rounds > 1.1 {
					t.Errorf("after a move: %.2f round trips, %v", rounds, err)
				}
			})
		})
	}
}

// TestErrorsOfUnknownDestinations come as what they are; those of a destination
// that was reached a moment ago come with the first read.
func TestErrorsOfUnknownDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 50 * time.Millisecond
		w := newWorld(t, r)
		defer w.close()
		m := w.join("laptop", 10)
		<-m.client.Ready()
		settle()
		if _, err := m.client.Dial(w.ctx, "tcp", "192.0.2.10:9"); !errors.Is(err, front.ErrRefused) {
			t.Errorf("dial of a closed port: %v", err)
		}
		ln, err := w.target.ListenTCP(w.ctx, netip.MustParseAddrPort("192.0.2.10:9"))
		if err != nil {
			t.Fatal(err)
		}
		w.tasks.Go(func() {
			if c, err := ln.Accept(); err == nil {
				c.Close()
			}
		})
		c, err := m.client.Dial(w.ctx, "tcp", "192.0.2.10:9")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		ln.Close()
		if c, err = m.client.Dial(w.ctx, "tcp", "192.0.2.10:9"); err != nil {
			t.Fatalf("a destination that was reached waits: %v", err)
		}
		if _, err = c.Read(make([]byte, 1)); !errors.Is(err, front.ErrRefused) {
			t.Errorf("read: %v", err)
		}
		c.Close()
		if _, err := m.client.Dial(w.ctx, "tcp", "192.0.2.10:9"); !errors.Is(err, front.ErrRefused) {
			t.Errorf("dial after that: %v", err)
		}
	})
}
