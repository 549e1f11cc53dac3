//go:build netns

package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A pki is an authority with a certificate for each end, in PEM.
type pki struct {
	ca, gwCert, gwKey, clCert, clKey string
	between                          []string // authorities between the ends and ca, nearest first
}

func newPKI(t *testing.T, kind string) pki {
	t.Helper()
	return newChain(t, kind, 0, 0)
}

// newChain is newPKI with a number of authorities between, and all certificates
// longer by so many bytes.
func newChain(t *testing.T, kind string, between, longer int) (p pki) {
	t.Helper()
	key := func() (k crypto.Signer) {
		var err error
		switch kind {
		case "ed25519":
			_, k, err = ed25519.GenerateKey(rand.Reader)
		case "rsa":
			k, err = rsa.GenerateKey(rand.Reader, 2048)
		default:
			k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	toPEM := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	template := func(name string) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature,
		}
		if longer > 0 {
			// Nobody knows this extension, and nobody has to.
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}, Value: make([]byte, longer)}}
		}
		return c
	}
	caKey, ca := key(), template("test authority")
	ca.IsCA, ca.KeyUsage = true, x509.KeyUsageCertSign
	sign := func(c *x509.Certificate, k crypto.Signer) string {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		return toPEM(der)
	}
	p.ca = sign(ca, caKey)
	for i := range between {
		k, c := key(), template("authority "+strconv.Itoa(i))
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		p.between = append([]string{sign(c, k)}, p.between...)
		caKey, ca = k, c
	}
	gwKey, gw := key(), template(gatewayName)
	gw.DNSNames = []string{gatewayName}
	gw.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	clKey, cl := key(), template(clientName)
	cl.EmailAddresses = []string{clientName}
	p.gwCert, p.gwKey = sign(gw, gwKey), pkcs8(t, gwKey)
	p.clCert, p.clKey = sign(cl, clKey), pkcs8(t, clKey)
	return p
}

// gwChain and clChain are the ends' certificates with those between.
func (p pki) gwChain() string { return p.gwCert + strings.Join(p.between, "") }
func (p pki) clChain() string { return p.clCert + strings.Join(p.between, "") }

// with adds the authorities to the files of a strongSwan.
func (p pki) with(files map[string]string) map[string]string {
	files["x509ca/ca.crt"] = p.ca
	for i, c := range p.between {
		files["x509ca/between"+strconv.Itoa(i)+".crt"] = c
	}
	return files
}

// strongSwanCertificate makes a strongSwan that uses the certificate of one end.
func (p pki) strongSwan(gateway bool, esp string) strongSwan {
	mine, theirs, cert, key := clientName, gatewayName, p.clCert, p.clKey
	if gateway {
		mine, theirs, cert, key = gatewayName, clientName, p.gwCert, p.gwKey
	}
	return strongSwan{
		gateway: gateway, esp: esp, secrets: " ",
		local:  "auth = pubkey\n      certs = own.crt\n      id = " + mine,
		remote: "auth = pubkey\n      cacerts = ca.crt\n      id = " + theirs,
		files:  p.with(map[string]string{"x509/own.crt": cert, "private/own.key": key}),
	}
}

var espAlgorithms = []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305"}

const certificateLines = "certificate_file = \"own.crt\"\ncertificate_key_file = \"own.key\"\nca_file = \"ca.crt\"\n"

func TestClientCertificate(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa"} {
		for _, algorithm := range espAlgorithms {
			t.Run(kind+" "+algorithm, func(t *testing.T) {
				n := gatewayNetwork(t, netns.Config{})
				p := newPKI(t, kind)
				startCharon(t, n.Server, p.strongSwan(true, algorithm+"-noesn"))
				c := newClient(t, n.Clients[0].Host, "identity = \""+gatewayName+"\"\nlocal = \""+clientName+"\"\n"+certificateLines,
					map[string]string{"own.crt": p.clCert, "own.key": p.clKey, "ca.crt": p.ca})
				c.run()
				echoes(t, within(t, time.Minute), c.DialContext, echoAddress, 1<<18)
			})
		}
	}
	t.Run("another authority", func(t *testing.T) {
		n := gatewayNetwork(t, netns.Config{})
		p, other := newPKI(t, "ecdsa"), newPKI(t, "ecdsa")
		startCharon(t, n.Server, p.strongSwan(true, ""))
		c := newClient(t, n.Clients[0].Host, "identity = \""+gatewayName+"\"\nlocal = \""+clientName+"\"\n"+certificateLines,
			map[string]string{"own.crt": p.clCert, "own.key": p.clKey, "ca.crt": other.ca})
		if line := c.fails(); !strings.Contains(line, "not to be trusted") {
			t.Errorf("it says %q", line)
		}
	})
}

func TestServerCertificate(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa"} {
		for _, algorithm := range espAlgorithms {
			t.Run(kind+" "+algorithm, func(t *testing.T) {
				n := serverNetwork(t, netns.Config{})
				ctx := within(t, 2*time.Minute)
				p := newPKI(t, kind)
				certifiedServer(t, n, p, p.ca)
				cl := startCharon(t, n.Clients[0].Host, p.strongSwan(false, algorithm+"-x25519-noesn"))
				if out := cl.connect(); !strings.Contains(out, "completed successfully") {
					t.Fatalf("not connected: %s", out)
				}
				echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<18)
			})
		}
	}
	t.Run("another authority", func(t *testing.T) {
		n := serverNetwork(t, netns.Config{})
		p := newPKI(t, "ecdsa")
		s := certifiedServer(t, n, p, newPKI(t, "ecdsa").ca)
		cl := startCharon(t, n.Clients[0].Host, p.strongSwan(false, ""))
		if out := cl.connect(); !strings.Contains(out, "AUTHENTICATION_FAILED") {
			t.Errorf("it came in: %s", out)
		}
		if err := s.Stderr.Expect(within(t, 10*time.Second), "not to be trusted"); err != nil {
			t.Error(err)
		}
	})
}

// certifiedServer is a server with a certificate, and a user with one of an
// authority.
func certifiedServer(t *testing.T, n *netns.Network, p pki, userCA string) *server {
	t.Helper()
	return startServerWith(t, n, certificateLines, map[string]string{"own.crt": p.gwChain(), "own.key": p.gwKey, "ca.crt": userCA},
		[]string{"user", "add", "carol", "--id", clientName, "--certificate"})
}
