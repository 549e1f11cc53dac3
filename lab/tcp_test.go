package lab_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab"
)

func TestTCPHandshakeTakesOneRoundTrip(t *testing.T) {
	for _, version := range []struct {
		name           string
		remote         netip.AddrPort
		client, atPeer string
	}{
		{"IPv4 behind a NAT", server443, "192.168.1.2:49152", "198.51.100.7:49152"},
		{"IPv6 without", netip.MustParseAddrPort("[2001:db8:2::1]:443"), "[2001:db8:1::2]:49152", "[2001:db8:1::2]:49152"},
	} {
		t.Run(version.name, func(t *testing.T) {
			run(t, nil, func(w *world) {
				l := must(w.server.ListenTCP(ctx, netip.AddrPortFrom(netip.Addr{}, 443)))
				defer l.Close()
				clock := lab.NewClock(R)
				c := must(w.client.DialTCP(ctx, netip.Addr{}, version.remote))
				defer c.Close()
				w.wantElapsed("connected", clock, 1)
				must(c.Write([]byte("hello")))
				s := must(l.Accept())
				defer s.Close()
				w.wantElapsed("accepted", clock, 1.5)
				if got, err := read(s); got != "hello" || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
				w.wantElapsed("first data", clock, 1.5)
				if got := c.LocalAddr().String(); got != version.client {
					t.Errorf("client's local address %v", got)
				}
				if got := s.RemoteAddr().String(); got != version.atPeer {
					t.Errorf("server's remote address %v", got)
				}
				if got := s.LocalAddr().String(); got != version.remote.String() {
					t.Errorf("server's local address %v", got)
				}
			})
		})
	}
}

func TestTCPEnds(t *testing.T) {
	t.Run("half close", func(t *testing.T) {
		run(t, nil, func(w *world) {
			c, s := w.pair()
			must(c.Write([]byte("request")))
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			_, err := c.Write([]byte("more"))
			w.wantErr("write after CloseWrite", err, syscall.EPIPE)
			if got := must(io.ReadAll(s)); string(got) != "request" {
				t.Errorf("server read %q", got)
			}
			must(s.Write([]byte("response")))
			s.Close()
			if got := must(io.ReadAll(c)); string(got) != "response" {
				t.Errorf("client read %q", got)
			}
			c.Close()
			_, err = read(c)
			w.wantErr("closed", err, net.ErrClosed)
		})
	})
	t.Run("refused", func(t *testing.T) {
		run(t, nil, func(w *world) {
			clock := lab.NewClock(R)
			_, err := w.client.DialTCP(ctx, netip.Addr{}, server443)
			w.wantErr("nobody listens", err, syscall.ECONNREFUSED)
			w.wantElapsed("refused", clock, 1)
		})
	})
	t.Run("reset", func(t *testing.T) {
		run(t, nil, func(w *world) {
			c, s := w.pair()
			defer s.Close()
			if err := c.(interface{ SetLinger(int) error }).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			c.Close()
			_, err := read(s)
			w.wantErr("peer lingered 0", err, syscall.ECONNRESET)
		})
	})
	t.Run("write to a closed peer", func(t *testing.T) {
		run(t, nil, func(w *world) {
			c, s := w.pair()
			defer c.Close()
			s.Close()
			if _, err := read(c); err != io.EOF {
				t.Errorf("read: %v, want EOF", err)
			}
			must(c.Write([]byte("x")))
			time.Sleep(R)
			_, err := c.Write([]byte("y"))
			w.wantErr("write", err, syscall.ECONNRESET)
		})
	})
	t.Run("close delivers what was written", func(t *testing.T) {
		run(t, nil, func(w *world) {
			c, s := w.pair()
			defer s.Close()
			must(c.Write(make([]byte, 200_000)))
			c.Close()
			if got := must(io.ReadAll(s)); len(got) != 200_000 {
				t.Errorf("%d bytes", len(got))
			}
		})
	})
	t.Run("dial cancelled", func(t *testing.T) {
		run(t, func(c *lab.NetworkConfig) { c.Firewall = lab.DropAll }, func(w *world) {
			ctx, cancel := context.WithTimeout(ctx, 7*R)
			defer cancel()
			clock := lab.NewClock(R)
			_, err := w.client.DialTCP(ctx, netip.Addr{}, server443)
			w.wantErr("dial", err, context.DeadlineExceeded)
			w.wantElapsed("cancelled", clock, 7)
		})
	})
	t.Run("dial unanswered", func(t *testing.T) {
		run(t, func(c *lab.NetworkConfig) { c.Firewall = lab.DropAll }, func(w *world) {
			start := time.Now()
			_, err := w.client.DialTCP(ctx, netip.Addr{}, server443)
			w.wantErr("dial", err, syscall.ETIMEDOUT)
			// 1+2+4+8+16+32 s and a last minute.
			if got := time.Since(start); got != 123*time.Second {
				t.Errorf("gave up after %v", got)
			}
		})
	})
	t.Run("listener closed", func(t *testing.T) {
		run(t, nil, func(w *world) {
			l := must(w.server.ListenTCP(ctx, netip.AddrPortFrom(netip.Addr{}, 443)))
			go func() {
				time.Sleep(R)
				l.Close()
			}()
			_, err := l.Accept()
			w.wantErr("accept", err, net.ErrClosed)
			_, err = w.client.DialTCP(ctx, netip.Addr{}, server443)
			w.wantErr("dial", err, syscall.ECONNREFUSED)
		})
	})
}

func TestTCPDeadlines(t *testing.T) {
	run(t, nil, func(w *world) {
		c, s := w.pair()
		defer c.Close()
		defer s.Close()
		clock := lab.NewClock(R)
		c.SetDeadline(time.Now().Add(2 * R))
		_, err := read(c)
		w.wantErr("read", err, os.ErrDeadlineExceeded)
		w.wantElapsed("read failed", clock, 2)

		c.SetDeadline(time.Now().Add(2 * R))
		n, err := c.Write(make([]byte, 1<<20)) // the server does not read
		w.wantErr("write", err, os.ErrDeadlineExceeded)
		w.wantElapsed("write failed", clock, 4)
		if want := 512 << 10; n != want {
			t.Errorf("wrote %d bytes, want both ends' buffers, %d", n, want)
		}
		c.SetDeadline(time.Time{})
		go io.Copy(io.Discard, s)
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			t.Errorf("once the server reads: %v", err)
		}
	})
}

// A million bytes over links that lose, swap, repeat and delay come as they
// were sent, and equal seeds take equal time.
func TestTCPOverABadLink(t *testing.T) {
	took := make(map[time.Duration]bool)
	for range 3 {
		run(t, func(c *lab.NetworkConfig) {
			c.Link = lab.Link{Delay: 20 * ms, Jitter: 3 * ms, Loss: 0.05, Reorder: 0.05, Duplicate: 0.05}
		}, func(w *world) {
			c, s := w.pair()
			defer s.Close()
			start := time.Now()
			want := make([]byte, 1_000_000)
			for i := range want {
				want[i] = byte(i >> 8 * (i & 7))
			}
			go func() {
				c.Write(want)
				c.Close()
			}()
			if got := must(io.ReadAll(s)); !slices.Equal(got, want) {
				t.Errorf("got other bytes, %d", len(got))
			}
			took[time.Since(start)] = true
			if w.dropped(lab.ByLoss) == 0 {
				t.Error("nothing was lost")
			}
		})
	}
	if len(took) != 1 {
		t.Errorf("equal seeds took different times: %v", took)
	}
}

func TestTCPLosesOneSegment(t *testing.T) {
	run(t, nil, func(w *world) {
		c, s := w.pair()
		defer c.Close()
		defer s.Close()
		lost := false
		w.home.SetFirewall(func(p lab.Packet) lab.Verdict {
			if len(p.Payload) > 0 && !lost {
				lost = true
				return lab.Drop
			}
			return lab.Pass
		})
		clock := lab.NewClock(R)
		must(c.Write([]byte("again")))
		if got, err := read(s); got != "again" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		// The timer is R + max(200 ms, 4 R/2), then half a round trip.
		w.wantElapsed("arrived", clock, 1+4+0.5)
	})
}

// Pieces that wait for the window share segments, and none is lost or swapped.
func TestTCPJoinsSmallWrites(t *testing.T) {
	run(t, nil, func(w *world) {
		c, s := w.pair()
		defer s.Close()
		var want []byte
		go func() {
			defer c.Close()
			for i := range 7000 {
				piece := slices.Repeat([]byte{byte(i)}, 1+i%97)
				want = append(want, piece...)
				c.Write(piece)
			}
		}()
		time.Sleep(10 * R) // both buffers fill
		if got := must(io.ReadAll(s)); !slices.Equal(got, want) {
			t.Errorf("%d bytes came, other ones than the %d sent", len(got), len(want))
		}
	})
}
