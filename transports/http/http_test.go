package http

import (
	"crypto/tls"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const path = "/secret"

// suite serves over TLS when there is a certificate.
func suite(o Options, cert *tls.Certificate) transporttest.Suite {
	o.Path = path
	return transporttest.Suite{
		Transport: New(o),
		Stream:    true,
		Serve: func(t testing.TB, n transports.Network, local netip.AddrPort, h transports.Handler) (netip.AddrPort, func()) {
			ln, err := n.ListenTCP(t.Context(), local)
			if err != nil {
				t.Fatal(err)
			}
			addr := transports.AddrPort(ln.Addr())
			return addr, transporttest.ServeWeb(ln, NewHandler(path, trusting{h}), cert)
		},
	}
}

// trusting takes every packet for authentic, as tests may last longer than a
// stranger is kept.
type trusting struct{ transports.Handler }

func (h trusting) Receive(c transports.Carrier, ps []transports.Packet) {
	c.(transports.Trusted).Trust()
	h.Handler.Receive(c, ps)
}

func TestSuitePlain(t *testing.T) { transporttest.Run(t, suite(Options{}, nil)) }

func TestSuiteTLS(t *testing.T) {
	cert, hash := transporttest.Certificate(t)
	transporttest.Run(t, suite(Options{Options: web.Options{TLS: true, CertHash: hash}}, &cert))
}

func BenchmarkSendPlain(b *testing.B) { transporttest.Benchmark(b, suite(Options{}, nil)) }
