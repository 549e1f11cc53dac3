//go:build virtualtime

package handover

import (
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

// bulk sends n bytes from the target to the client, or the other way, and
// tells when each tenth of them had arrived.
func (m *mobile) bulk(n int, down bool) func() []time.Time {
	t := m.w.t
	ln, err := m.w.target.ListenTCP(t.Context(), netip.MustParseAddrPort(targetAt))
	if err != nil {
		t.Fatal(err)
	}
	times := make(chan []time.Time, 1)
	send := func(w io.WriteCloser) {
		b := make([]byte, 64<<10)
		for left := n; left > 0; left -= len(b) {
			b = b[:min(len(b), left)]
			if _, err := w.Write(b); err != nil {
				t.Errorf("write: %v", err)
				break
			}
		}
		w.Close()
	}
	receive := func(r io.ReadCloser) {
		var at []time.Time
		b := make([]byte, 64<<10)
		got := 0
		for {
			k, err := r.Read(b)
			for got += k; len(at) < 10*got/n; {
				at = append(at, time.Now())
			}
			if err != nil {
				break
			}
		}
		if got != n {
			t.Errorf("%d of %d bytes arrived", got, n)
		}
		r.Close()
		times <- at
	}
	go func() {
		c, err := ln.Accept()
		ln.Close()
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		if down {
			send(c)
		} else {
			receive(c)
		}
	}()
	c, err := m.client.Dial(t.Context(), "tcp", targetAt)
	if err != nil {
		t.Fatal(err)
	}
	if down {
		go receive(c)
	} else {
		go io.Copy(io.Discard, c) // as applications do; what they close unread is reset
		go send(c)
	}
	return func() []time.Time { return <-times }
}

// TestBulkGoesOnAfterAMove has a long transfer fill a link when the network
// changes; it must be back at speed soon, whichever encapsulation is left.
func TestBulkGoesOnAfterAMove(t *testing.T) {
	const (
		r    = 40 * time.Millisecond
		rate = 5 << 20 // bytes a second
		size = 30 << 20
	)
	for _, tt := range []struct {
		name     string
		firewall lab.Firewall
		down     bool
	}{
		{"down over udp", nil, true},
		{"up over udp", nil, false},
		{"down over tcp", lab.OnlyTCP, true},
		{"up over tcp", lab.OnlyTCP, false},
		{"down over tls", lab.OnlyTLS443, true},
		{"up over tls", lab.OnlyTLS443, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, r)
				defer w.close()
				link := lab.Link{Delay: r / 2, Rate: rate}
				w.wifi.SetLink(link)
				w.cell.SetLink(link)
				w.cell.SetFirewall(tt.firewall)
				m := w.join("laptop", 10)
				<-m.client.Ready()
				settle()
				start := time.Now()
				done := m.bulk(size, tt.down)
				time.Sleep(2 * time.Second)
				m.host.Move("if0", w.cell)
				at := done()
				for i, a := range at {
					t.Logf("%d%% after %v", 10*(i+1), a.Sub(start))
				}
				s := m.client.Status()
				for _, r := range s.Registrations {
					t.Log(r.Started.Sub(start), r.Trigger, r.Selected, r.DurationMs)
				}
				// Six seconds at full rate; the rest is for headers, the start
				// and the move.
				if total := at[len(at)-1].Sub(start); total > 10*time.Second {
					t.Errorf("30 MiB at 5 MiB a second took %v", total)
				}
			})
		})
	}
}
