package udp

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var suite = transporttest.Suite{
	Transport: New(Options{}),
	Serve: func(t testing.TB, n transports.Network, local netip.AddrPort, h transports.Handler) (netip.AddrPort, func()) {
		l, err := Listen(n, local, h)
		if err != nil {
			t.Fatal(err)
		}
		return l.Addr(), serve(l)
	},
}

func serve(l *Listener) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Serve()
	}()
	return func() { l.Close(); <-done }
}

func TestSuite(t *testing.T) { transporttest.Run(t, suite) }

func BenchmarkSend(b *testing.B) { transporttest.Benchmark(b, suite) }
