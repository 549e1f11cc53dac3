package websocket

import (
	"crypto/tls"
	"net"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
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
			return addr, serve(ln, h, cert)
		},
	}
}

func serve(ln net.Listener, h transports.Handler, cert *tls.Certificate) (stop func()) {
	return transporttest.ServeWeb(ln, NewHandler(path, h), cert)
}

func TestSuitePlain(t *testing.T) { transporttest.Run(t, suite(Options{}, nil)) }

func TestSuiteTLS(t *testing.T) {
	cert, hash := transporttest.Certificate(t)
	transporttest.Run(t, suite(Options{TLS: true, CertHash: hash}, &cert))
}

func BenchmarkSendPlain(b *testing.B) { transporttest.Benchmark(b, suite(Options{}, nil)) }

func BenchmarkSendTLS(b *testing.B) {
	cert, hash := transporttest.Certificate(b)
	transporttest.Benchmark(b, suite(Options{TLS: true, CertHash: hash}, &cert))
}
