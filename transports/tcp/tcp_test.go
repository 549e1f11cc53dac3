package tcp

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var suite = transporttest.Suite{
	Transport: New(),
	Stream:    true,
	Serve: func(t testing.TB, n transports.Network, local netip.AddrPort, h transports.Handler) (netip.AddrPort, func()) {
		ln, err := n.ListenTCP(t.Context(), local)
		if err != nil {
			t.Fatal(err)
		}
		l := NewListener(ln, h)
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Serve()
		}()
		return transports.AddrPort(ln.Addr()), func() { l.Close(); <-done }
	},
}

func TestSuite(t *testing.T) { transporttest.Run(t, suite) }

func BenchmarkSend(b *testing.B) { transporttest.Benchmark(b, suite) }
