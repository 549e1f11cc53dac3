package tunnel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// reluctant gives what it has in pieces of any size.
type reluctant struct {
	r   io.Reader
	rng *rand.Rand
}

func (r *reluctant) Read(b []byte) (int, error) { return io.ReadFull(r.r, b[:1+r.rng.IntN(len(b))]) }

var errEnough = errors.New("enough for now")

// picky takes bytes in pieces of any size, and often none for now.
type picky struct {
	w   io.Writer
	rng *rand.Rand
}

func (p *picky) Write(b []byte) (int, error) {
	if p.rng.IntN(4) == 0 {
		return 0, errEnough
	}
	n := 1 + p.rng.IntN(len(b))
	p.w.Write(b[:n])
	if n < len(b) {
		return n, errEnough
	}
	return n, nil
}

func TestFeedAndDrain(t *testing.T) {
	const size = 8 << 20
	for _, w := range []*wire{{check: true, fused: true}, {check: true, cut: true, each: true}} {
		connect(t, w)
		a, b := w.dialed(t, addrB4)
		sent := make(chan error, 1)
		go func() {
			src := &reluctant{stream(1, size), rand.New(rand.NewPCG(1, 2))}
			for left := size; left > 0; {
				n, err := a.(*conn).Feed(src, min(left, 1+src.rng.IntN(200000)))
				if left -= n; err != nil {
					sent <- err
					return
				}
			}
			sent <- a.(*conn).CloseWrite()
		}()
		got, want := sha256.New(), sha256.New()
		dst := &picky{w: got, rng: rand.New(rand.NewPCG(3, 4))}
		total := 0
		for {
			n, err := b.(*conn).Drain(dst)
			total += n
			if err == io.EOF {
				break
			}
			if err != nil && (n > 0 || err != errEnough) {
				t.Fatalf("after %d bytes, %d at once: %v", total, n, err)
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		io.Copy(want, stream(1, size))
		if total != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
			t.Errorf("%d of %d bytes, or others", total, size)
		}
		a.Close()
		b.Close()
		w.Close()
		if own, all := a.(*conn).ahead.bytes.Load(), w.a.ahead.Load(); own != 0 || all != 0 {
			t.Errorf("everything has left, and %d bytes count as ahead, %d of all", own, all)
		}
	}
}

// Feed waits while much has not left, and goes on when enough has.
func TestFeedStaysNear(t *testing.T) {
	w := &wire{cut: true}
	connect(t, w)
	defer w.Close()
	a, b := w.dialed(t, addrB4)
	defer a.Close()
	defer b.Close()
	feed := func() (int, error) { return a.(*conn).Feed(bytes.NewReader(make([]byte, 10)), 10) }
	c := a.(*conn)
	w.a.ahead.Add(allAhead)
	if n, err := feed(); n != 10 || err != nil {
		t.Errorf("others have much to send: %d, %v", n, err)
	}
	c.ahead.bytes.Add(2 * oneAhead)
	a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := feed(); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it has much to send itself: %d, %v", n, err)
	}
	a.SetWriteDeadline(time.Time{})
	fed := make(chan error)
	go func() { _, err := feed(); fed <- err }()
	for range 2 * oneAhead / 1024 {
		c.left(1024)
	}
	if err := <-fed; err != nil {
		t.Errorf("it had: %v", err)
	}
	c.ahead.bytes.Add(2 * oneAhead)
	w.a.ahead.Add(-allAhead)
	if n, err := feed(); n != 10 || err != nil {
		t.Errorf("nobody else has: %d, %v", n, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// What ends a Feed or a Drain that waits, and what they say then.
func TestFeedAndDrainEnd(t *testing.T) {
	w := &wire{cut: true}
	connect(t, w)
	defer w.Close()
	a, b := w.dialed(t, addrB4)
	defer b.Close()
	if n, err := a.(*conn).Feed(failing{io.ErrNoProgress}, 10); n != 0 || err != io.ErrNoProgress {
		t.Errorf("the source fails: %d, %v", n, err)
	}
	if n, err := a.(*conn).Feed(bytes.NewReader(make([]byte, 5)), 10); n != 0 || err != io.ErrUnexpectedEOF {
		t.Errorf("the source has less: %d, %v", n, err)
	}
	if n, err := a.(*conn).Feed(bytes.NewReader(make([]byte, 5)), 5); n != 5 || err != nil {
		t.Errorf("the source has all: %d, %v", n, err)
	}
	if n, err := b.(*conn).Drain(failing{errEnough}); n != 0 || err != errEnough {
		t.Errorf("nothing is taken: %d, %v", n, err)
	}
	if n, err := b.(*conn).Drain(io.Discard); n != 5 || err != nil {
		t.Errorf("all is taken: %d, %v", n, err)
	}
	b.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := b.(*conn).Drain(io.Discard); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline comes: %v", err)
	}
	b.SetReadDeadline(time.Now().Add(time.Hour))

	ended := make(chan error, 2)
	go func() { _, err := a.(*conn).Drain(io.Discard); ended <- err }()
	go func() {
		for {
			// Until nothing fits in any more: b does not read.
			if _, err := a.(*conn).Feed(bytes.NewReader(make([]byte, 1<<20)), 1<<20); err != nil {
				ended <- err
				return
			}
		}
	}()
	a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no room until the deadline: %v", err)
	}
	a.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
