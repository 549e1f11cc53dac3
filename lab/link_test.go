package lab_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// What happens to a hundred numbered datagrams, a millisecond apart.
func TestLinkLuck(t *testing.T) {
	type outcome struct{ missing, twice, overtaken int }
	for _, test := range []struct {
		name string
		link lab.Link
		want func(o outcome, latest time.Duration) bool
	}{
		{"perfect", lab.Link{}, func(o outcome, latest time.Duration) bool { return o == outcome{} && latest == R/2 }},
		{"jitter keeps the order", lab.Link{Jitter: 20 * ms}, func(o outcome, latest time.Duration) bool {
			return o == outcome{} && latest > R/2+10*ms && latest < R/2+20*ms
		}},
		{"loss", lab.Link{Loss: 0.2}, func(o outcome, _ time.Duration) bool {
			return o.missing > 10 && o.missing < 30 && o.twice == 0 && o.overtaken == 0
		}},
		{"duplicate", lab.Link{Duplicate: 0.2}, func(o outcome, _ time.Duration) bool {
			return o.twice > 10 && o.twice < 30 && o.missing == 0
		}},
		{"reorder", lab.Link{Reorder: 0.2}, func(o outcome, latest time.Duration) bool {
			return o.overtaken > 10 && o.overtaken < 30 && o.missing == 0 && latest == R/2+20*ms
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(c *lab.NetworkConfig) { test.link.Delay = c.Link.Delay; c.Link = test.link }, func(w *world) {
				s := w.listenUDP()
				defer s.Close()
				c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
				defer c.Close()
				left := make([]time.Time, 100)
				for i := range left {
					left[i] = time.Now()
					must(c.Write([]byte{byte(i)}))
					time.Sleep(ms)
				}
				time.Sleep(R)
				var o outcome
				var latest time.Duration
				var got []byte
				for _, e := range w.recording.Events(func(e lab.Event) bool { return e.Fate == lab.Delivered }) {
					i := e.Payload[0]
					latest = max(latest, e.Time.Sub(left[i]))
					if slices.Contains(got, i) {
						o.twice++
						continue
					}
					if len(got) > 0 && i < slices.Max(got) {
						o.overtaken++
					}
					got = append(got, i)
				}
				o.missing = len(left) - len(got)
				if !test.want(o, latest) {
					t.Errorf("%+v, the slowest took %v", o, latest)
				}
			})
		})
	}
}

func TestSetLinkLeavesWhatIsUnderWay(t *testing.T) {
	run(t, nil, func(w *world) {
		s := w.listenUDP()
		defer s.Close()
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer c.Close()
		clock := lab.NewClock(ms)
		must(c.Write([]byte("slow")))
		w.home.SetLink(lab.Link{Delay: ms})
		must(c.Write([]byte("fast")))
		for _, want := range []struct {
			payload string
			at      float64
		}{{"fast", 6}, {"slow", 25}} {
			if got, _ := readFrom(s); got != want.payload {
				t.Errorf("got %q, want %q", got, want.payload)
			}
			w.wantElapsed(want.payload, clock, want.at)
		}
	})
}
