package http

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// certificate makes a self-signed one, valid also in a bubble's year 2000.
func certificate(t testing.TB) (tls.Certificate, [32]byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "gateway.example"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sha256.Sum256(der)
}

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
	cert, hash := certificate(t)
	transporttest.Run(t, suite(Options{Options: web.Options{TLS: true, CertHash: hash}}, &cert))
}

func BenchmarkSendPlain(b *testing.B) { transporttest.Benchmark(b, suite(Options{}, nil)) }
