package transporttest

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
)

// counter counts the packets that it is given.
type counter struct {
	n    atomic.Int64
	want int64
	done chan struct{}
}

func (c *counter) Receive(_ transports.Carrier, ps []transports.Packet) {
	if n := c.n.Add(int64(len(ps))); n >= c.want && n-int64(len(ps)) < c.want {
		close(c.done)
	}
}

func (c *counter) Closed(transports.Carrier, error) {}

// Benchmark sends packets of 1,400 bytes over loopback, 32 in a call. An
// operation is one packet. Streams are waited for; of datagrams the share that
// arrived is reported.
func Benchmark(b *testing.B, s Suite) {
	const size, batch = 1400, 32
	n := (b.N + batch - 1) / batch
	got := &counter{want: int64(n * batch), done: make(chan struct{})}
	network := system.New()
	remote, stop := s.Serve(b, network, netip.MustParseAddrPort("127.0.0.1:0"), got)
	defer stop()
	c, err := s.Transport.Dial(b.Context(), transports.Opening{Network: network, Remote: remote, Handler: NewRecorder()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ps := make([]transports.Packet, batch)
	for i := range ps {
		ps[i] = esp(size, i)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	for range n {
		if err := c.Send(ps); err != nil {
			b.Fatal(err)
		}
	}
	if s.Stream {
		<-got.done
	} else {
		b.ReportMetric(float64(got.n.Load())/float64(n*batch), "arrived/sent")
	}
}
