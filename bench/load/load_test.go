package load

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxied starts a target and a relay, and gives a way to the one through the
// other.
func proxied(t *testing.T) Dialer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var addrs []string
	for _, f := range []func(context.Context, net.Listener) error{Serve, Relay} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, ln.Addr().String())
		done := make(chan error, 1)
		go func() { done <- f(ctx, ln) }()
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(cancel) // runs before the waits
	return Through(addrs[1], netip.MustParseAddrPort(addrs[0]))
}

func TestBulk(t *testing.T) {
	dial := proxied(t)
	for _, mode := range []Mode{Down, Up} {
		for _, streams := range []int{1, 8} {
			got, err := Bulk(t.Context(), dial, mode, streams, 8*10*BlockSize, time.Hour)
			if err != nil {
				t.Fatalf("%s, %d streams: %v", mode, streams, err)
			}
			if got.Bytes != 8*10*BlockSize || got.Cut || got.Seconds <= 0 {
				t.Errorf("%s, %d streams: %+v", mode, streams, got)
			}
		}
	}
}

func TestBulkIsCutAtItsLimit(t *testing.T) {
	dial := proxied(t)
	for _, mode := range []Mode{Down, Up} {
		got, err := Bulk(t.Context(), dial, mode, 2, 1<<60, 50*time.Millisecond)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if !got.Cut || got.Bytes == 0 || got.Bytes >= 1<<60 {
			t.Errorf("%s: %+v", mode, got)
		}
	}
}

func TestPingAndFirstBytes(t *testing.T) {
	dial := proxied(t)
	p, err := Ping(t.Context(), dial, 0, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if p.Count < 1 || p.P50 <= 0 || p.P99 < p.P50 {
		t.Errorf("pings %+v", p)
	}
	times, err := FirstBytes(t.Context(), dial, 3)
	if err != nil || len(times) != 3 {
		t.Errorf("first bytes %v, %v", times, err)
	}
}

func TestHold(t *testing.T) {
	dial := proxied(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready := 0
	// Hold ends without an error although ready ends its context.
	if err := Hold(ctx, dial, 5, func() { ready++; cancel() }); err != nil || ready != 1 {
		t.Errorf("Hold: %v, ready %d times", err, ready)
	}
}

func TestNobodyAnswers(t *testing.T) {
	dial := proxied(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(closed.Addr().String())
	closed.Close()
	// The relay's answer for a target that refuses.
	c, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proxy := c.RemoteAddr().String()
	c.Close()
	if _, err := Through(proxy, at)(t.Context()); err == nil || !strings.Contains(err.Error(), "answers 5") {
		t.Errorf("a closed target gives %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if err := Probe(ctx, Through(at.String(), at)); err == nil {
		t.Error("Probe succeeds without anybody there")
	}
}

// stream gives what send writes.
func stream(t *testing.T, n uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := send(&b, n, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSwallow(t *testing.T) {
	whole := func(b []byte) io.Reader { return bytes.NewReader(b) }
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		read   func([]byte) io.Reader
		err    error
	}{
		{"as sent", func(b []byte) []byte { return b }, whole, nil},
		{"byte by byte", func(b []byte) []byte { return b }, func(b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) }, nil},
		{"half reads", func(b []byte) []byte { return b }, func(b []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(b)) }, nil},
		{"one byte lost", func(b []byte) []byte { return append(b[:100:100], b[101:]...) }, whole, errPattern},
		{"the end lost", func(b []byte) []byte { return b[:len(b)-1] }, whole, io.ErrUnexpectedEOF},
		{"a byte more", func(b []byte) []byte { return append(b, 0) }, whole, errPattern},
		{"a byte changed", func(b []byte) []byte { b[70000]++; return b }, func(b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) }, errPattern},
		{"no flag", func(b []byte) []byte { b[0] = 0; return b }, whole, errPattern},
	} {
		b := stream(t, 3)
		want := uint64(len(b))
		got, err := swallow(tt.read(tt.change(b)))
		if !errors.Is(err, tt.err) || err == nil && got != want {
			t.Errorf("%s: %d bytes, %v; want %d, %v", tt.name, got, err, want, tt.err)
		}
	}
}

func TestSendLengths(t *testing.T) {
	for _, n := range []uint64{1, 3, 4, 5, 8, 9} {
		if got := len(stream(t, n)); got != int(n)*BlockSize {
			t.Errorf("%d blocks: %d bytes", n, got)
		}
	}
	stop := make(chan struct{})
	close(stop)
	var b bytes.Buffer
	if err := send(&b, 1<<40, stop); err != nil || b.Len() != BlockSize || b.Bytes()[0] != last {
		t.Errorf("stopped: %d bytes, %v", b.Len(), err)
	}
}

func TestQuantile(t *testing.T) {
	ms := time.Millisecond
	for _, tt := range []struct {
		times []time.Duration
		q     float64
		want  float64
	}{
		{nil, 0.5, 0},
		{[]time.Duration{3 * ms}, 0.99, 3},
		{[]time.Duration{1 * ms, 2 * ms, 3 * ms}, 0.5, 2},
		{[]time.Duration{1 * ms, 2 * ms, 3 * ms}, 1, 3},
		{[]time.Duration{1 * ms, 2 * ms, 3 * ms}, 0, 1},
	} {
		if got := Quantile(tt.times, tt.q); got != tt.want {
			t.Errorf("Quantile(%v, %v) = %v, want %v", tt.times, tt.q, got, tt.want)
		}
	}
}

// A conversation is what the other side says, and keeps what it hears.
type conversation struct {
	io.Reader
	bytes.Buffer
}

func (c *conversation) Read(b []byte) (int, error) { return c.Reader.Read(b) }

func FuzzSOCKS(f *testing.F) {
	f.Add([]byte{5, 0, 5, 0, 0, 1, 1, 2, 3, 4, 0, 80})
	f.Add([]byte{5, 0, 5, 0, 0, 3, 2, 'a', 'b', 0, 80})
	f.Add([]byte{5, 1, 0, 5, 1, 0, 4, 15: 1, 24: 9})
	f.Add([]byte{5, 2, 0, 1, 5, 1, 0, 1, 10, 0, 0, 1, 0, 80})
	target := netip.MustParseAddrPort("192.0.2.10:7000")
	f.Fuzz(func(t *testing.T, said []byte) {
		_ = connect(&conversation{Reader: bytes.NewReader(said)}, target)
		a, err := accept(&conversation{Reader: bytes.NewReader(said)})
		if err == nil && !a.IsValid() {
			t.Errorf("accepted %v", a)
		}
		_, _ = swallow(bytes.NewReader(said))
		_, _, _ = readRequest(bytes.NewReader(said))
	})
}
