package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// A Transfer is what Bulk moved.
type Transfer struct {
	Bytes   uint64  `json:"bytes"`
	Seconds float64 `json:"seconds"` // from the first request to the last byte
	Cut     bool    `json:"cut"`     // the time limit ended it
}

// Bulk moves bytes in total over several streams at once, in whole blocks, or
// as many as go in limit. The clock starts when all streams are connected.
// Upload counts when the target has acknowledged it.
func Bulk(ctx context.Context, dial Dialer, mode Mode, streams int, count uint64, limit time.Duration) (Transfer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var cs []net.Conn
	for range streams {
		c, err := dial(ctx)
		if err != nil {
			return Transfer{}, err
		}
		defer c.Close()
		cs = append(cs, c)
	}
	defer context.AfterFunc(ctx, func() {
		for _, c := range cs {
			c.Close()
		}
	})()
	stop := make(chan struct{})
	var (
		mu    sync.Mutex
		t     Transfer
		errs  []error
		group sync.WaitGroup
	)
	start := time.Now()
	timer := time.AfterFunc(limit, func() { close(stop) })
	for _, c := range cs {
		group.Go(func() {
			n, cut, err := one(c, mode, count/uint64(streams), stop)
			mu.Lock()
			defer mu.Unlock()
			t.Bytes += n
			t.Cut = t.Cut || cut
			if err != nil {
				errs = append(errs, err)
				cancel()
			}
		})
	}
	group.Wait()
	t.Seconds = time.Since(start).Seconds()
	timer.Stop()
	return t, errors.Join(errs...)
}

// one moves the bytes of one stream.
func one(c net.Conn, mode Mode, count uint64, stop <-chan struct{}) (n uint64, cut bool, err error) {
	if _, err := c.Write(appendRequest(nil, mode, count)); err != nil {
		return 0, false, err
	}
	want := blocks(count) * BlockSize
	if mode == Up {
		if err := send(c, blocks(count), stop); err != nil {
			return 0, false, fmt.Errorf("send: %w", err)
		}
		var b [8]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return 0, false, fmt.Errorf("wait for the acknowledgment: %w", err)
		}
		n = binary.BigEndian.Uint64(b[:])
		if n > want {
			return n, false, fmt.Errorf("the target got %d of %d bytes", n, want)
		}
		return n, n < want, nil
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-stop:
			c.SetReadDeadline(time.Unix(1, 0))
		case <-done:
		}
	}()
	n, err = swallow(c)
	if err == nil && n != want {
		err = fmt.Errorf("%d of %d bytes came", n, want)
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return n, true, nil
	}
	if err != nil {
		err = fmt.Errorf("receive: %w", err)
	}
	return n, false, err
}

// Pings is what Ping measured.
type Pings struct {
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

// Ping sends messages of MessageSize over one connection for a while and waits
// for each echo. With a pace, messages start that far apart or further;
// without, each follows the echo of the one before.
func Ping(ctx context.Context, dial Dialer, pace, length time.Duration) (Pings, error) {
	c, err := dial(ctx)
	if err != nil {
		return Pings{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Write(appendRequest(nil, Echo, 0)); err != nil {
		return Pings{}, err
	}
	msg, got := make([]byte, MessageSize), make([]byte, MessageSize)
	var times []time.Duration
	var start time.Time
	for i := 0; ; i++ {
		at := time.Now()
		if i == 1 {
			start = at // the first one may still wait for the connection
		}
		if i > 1 && at.Sub(start) >= length {
			break
		}
		binary.BigEndian.PutUint64(msg, uint64(i))
		if _, err := c.Write(msg); err != nil {
			return Pings{}, err
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return Pings{}, err
		}
		if !bytes.Equal(msg, got) {
			return Pings{}, errPattern
		}
		took := time.Since(at)
		if i > 0 {
			times = append(times, took)
		}
		if wait := pace - took; wait > 0 {
			time.Sleep(wait)
		}
	}
	p := Pings{Count: len(times), Seconds: time.Since(start).Seconds()}
	slices.Sort(times)
	p.P50, p.P99 = Quantile(times, 0.5), Quantile(times, 0.99)
	return p, nil
}

// Quantile gives a quantile (0 to 1, nearest rank) of sorted times, in
// milliseconds; 0 without any.
func Quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min(len(sorted)-1, max(0, int(q*float64(len(sorted)))))
	return sorted[i].Seconds() * 1e3
}

// FirstBytes opens connections one after the other and gives the times from
// the beginning of each to the first byte of an answer, in milliseconds.
func FirstBytes(ctx context.Context, dial Dialer, n int) ([]float64, error) {
	var times []float64
	for range n {
		start := time.Now()
		c, err := dial(ctx)
		if err != nil {
			return times, err
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		err = echoOnce(c)
		took := time.Since(start)
		stop()
		c.Close()
		if err != nil {
			return times, err
		}
		times = append(times, took.Seconds()*1e3)
	}
	return times, nil
}

// echoOnce asks for an echo of one byte.
func echoOnce(c io.ReadWriter) error {
	if _, err := c.Write(append(appendRequest(nil, Echo, 0), 'x')); err != nil {
		return err
	}
	var b [1]byte
	_, err := io.ReadFull(c, b[:])
	return err
}

// Hold opens n connections, sees a byte come back on each, calls ready, and
// keeps them open without traffic until ctx ends.
func Hold(ctx context.Context, dial Dialer, n int, ready func()) error {
	for range n {
		c, err := dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
		err = echoOnce(c)
		stop()
		if err != nil {
			return err
		}
	}
	ready()
	<-ctx.Done()
	return nil
}

// Probe tries until the target answers, or ctx ends.
func Probe(ctx context.Context, dial Dialer) error {
	for {
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err := FirstBytes(try, dial, 1)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the target does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
