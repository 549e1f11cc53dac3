package lab_test

import (
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// What ten segments take when some of them are lost, in round trips.
func TestTCPRecovery(t *testing.T) {
	for _, test := range []struct {
		name string
		lose func(number int) bool // of the segment with data, counted from 0
		want float64
	}{
		{"none", func(int) bool { return false }, 0.5},
		{"the first: the others tell", func(n int) bool { return n == 0 }, 1.5},
		{"two: the others tell", func(n int) bool { return n == 0 || n == 3 }, 1.5},
		// R + 200 ms is five round trips.
		{"the last: the timer tells", func(n int) bool { return n == 9 }, 1 + 5 + 0.5},
		{"all: one goes ahead, the others follow", func(n int) bool { return n < 10 }, 5 + 1 + 0.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, nil, func(w *world) {
				c, s := w.pair()
				defer c.Close()
				defer s.Close()
				number := -1
				w.home.SetFirewall(func(p lab.Packet) lab.Verdict {
					if len(p.Payload) > 0 {
						if number++; test.lose(number) {
							return lab.Drop
						}
					}
					return lab.Pass
				})
				clock := lab.NewClock(R)
				must(c.Write(make([]byte, 10*1460)))
				must(io.ReadFull(s, make([]byte, 10*1460)))
				w.wantElapsed("all bytes", clock, test.want)
			})
		})
	}
}

func TestTCPWindow(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(map[bool]string{false: "opens", true: "opens, and the news is lost"}[lost], func(t *testing.T) {
			run(t, nil, func(w *world) {
				c, s := w.pair()
				defer s.Close()
				defer c.Close()
				must(c.Write(make([]byte, 256<<10)))
				time.Sleep(R)
				must(c.Write([]byte("x"))) // fits into the sender's buffer, not into the window
				time.Sleep(R)
				if lost {
					w.home.SetFirewall(lab.Inbound(lab.DropTCP))
				}
				clock := lab.NewClock(R)
				must(io.ReadFull(s, make([]byte, 256<<10)))
				time.Sleep(R / 2)
				w.home.SetFirewall(nil)
				if got, err := read(s); got != "x" || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
				if got := clock.Rounds(); lost != (got > 1) {
					t.Errorf("the next byte came after %v round trips", got)
				}
			})
		})
	}
}

func TestTCPUnhappyEnds(t *testing.T) {
	t.Run("bytes unread", func(t *testing.T) {
		run(t, nil, func(w *world) {
			c, s := w.pair()
			defer c.Close()
			must(c.Write([]byte("unread")))
			time.Sleep(R)
			s.Close()
			_, err := read(c)
			w.wantErr("read", err, syscall.ECONNRESET)
		})
	})
	t.Run("the peer never closes", func(t *testing.T) {
		run(t, nil, func(w *world) {
			c, s := w.pair()
			c.Close()
			time.Sleep(2 * time.Minute)
			s.Close()
			time.Sleep(R)
			resets := w.recording.Events(func(e lab.Event) bool { return e.Where == "client" && strings.Contains(e.Flags, "R") })
			if len(resets) == 0 {
				t.Error("the closed end is still kept")
			}
		})
	})
}

func TestNeighboursAreReachedFromTheirNetwork(t *testing.T) {
	run(t, nil, func(w *world) {
		lan := w.AddNetwork("lan", lab.NetworkConfig{Prefixes: lab.Prefixes("10.1.0.0/24")})
		printer := w.AddHost("printer")
		at := printer.Attach("eth0", lan)[0]
		w.client.Attach("eth0", lan)
		if got := must(w.client.LocalAddress(at)); got != lab.Addrs("10.1.0.3")[0] {
			t.Errorf("local address %v", got)
		}
		s := must(printer.ListenUDP(ctx, netip.AddrPortFrom(at, 9100)))
		defer s.Close()
		c := must(w.client.DialUDP(ctx, netip.Addr{}, netip.AddrPortFrom(at, 9100)))
		defer c.Close()
		must(c.Write([]byte("x")))
		if _, from := readFrom(s); from.Addr() != lab.Addrs("10.1.0.3")[0] {
			t.Errorf("from %v", from)
		}
	})
}
