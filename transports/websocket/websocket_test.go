package websocket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
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
		DNSNames:     []string{"gateway.example"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA:         true, BasicConstraintsValid: true,
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
			return addr, serve(ln, h, cert)
		},
	}
}

func serve(ln net.Listener, h transports.Handler, cert *tls.Certificate) (stop func()) {
	return transporttest.ServeWeb(ln, NewHandler(path, h), cert)
}

func TestSuitePlain(t *testing.T) { transporttest.Run(t, suite(Options{}, nil)) }

func TestSuiteTLS(t *testing.T) {
	cert, hash := certificate(t)
	transporttest.Run(t, suite(Options{TLS: true, CertHash: hash}, &cert))
}

func BenchmarkSendPlain(b *testing.B) { transporttest.Benchmark(b, suite(Options{}, nil)) }

func BenchmarkSendTLS(b *testing.B) {
	cert, hash := certificate(b)
	transporttest.Benchmark(b, suite(Options{TLS: true, CertHash: hash}, &cert))
}
