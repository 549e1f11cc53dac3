//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// webName is the name that the server alone can resolve; it is the target's.
const webName = "web.test"

// A desk is where a person's programs run: a client that has just the proxy
// to get out by, and a home folder for what the programs are set to.
type desk struct {
	n    *netns.Network
	c    *client
	ctx  context.Context
	home string
	// names counts questions to name servers that left the host by themselves.
	names *nameWatch
}

// startDesk makes the networks wifi and cell, a server and a client with its
// proxy. At the end no name server must have been asked outside the tunnel.
func startDesk(t *testing.T) *desk {
	t.Helper()
	n := netns.New(t, netns.Config{Access: accessNetworks[:2]})
	startDNS(t, n.Server, webName+".", netns.TargetIPv4)
	d := &desk{n: n, ctx: within(t, 2*time.Minute), home: t.TempDir()}
	d.names = watchNames(t, n.Clients[0].Host)
	t.Cleanup(func() {
		if k := d.names.count(); k > 0 {
			t.Errorf("%d packets asked a name server outside the tunnel", k)
		}
	})
	d.c = startClient(t, startServer(t, n), n.Clients[0])
	return d
}

// start starts a program whose home folder is the desk's; env has more
// variables for it.
func (d *desk) start(env []string, name string, args ...string) *netns.Process {
	h := d.c.host
	cmd := h.Command(name, args...)
	for _, v := range os.Environ() {
		// Settings of who runs the test are none of the program's.
		if key, _, _ := strings.Cut(v, "="); !strings.HasSuffix(strings.ToLower(key), "_proxy") && !strings.HasPrefix(key, "GIT_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "HOME="+d.home, "LC_ALL=C"), env...)
	return h.Lab().Start(h.Name+"-"+filepath.Base(name), cmd)
}

// finish waits for a program, which has to succeed, and gives what it printed.
func (d *desk) finish(t *testing.T, p *netns.Process) string {
	t.Helper()
	code, err := p.Wait(d.ctx)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, p.Stdout, p.Stderr)
	}
	return p.Stdout.String()
}

// move goes from one network to the other and waits until the client has noticed.
func (d *desk) move(t *testing.T, to string) {
	t.Helper()
	before := d.c.status(t)
	d.c.host.Move(to, netns.Hard)
	d.c.await(t, d.ctx, "connected in "+to, func(s status) bool {
		return s.State == "connected" && strings.HasPrefix(s.Path.Local, d.c.host.Addresses(to)[0].String()+":") && noticed(before, s)
	})
}

// serve serves h at the target until the test ends, with TLS if id is given.
func (d *desk) serve(t *testing.T, port string, id *identity, h http.Handler) {
	t.Helper()
	server := &http.Server{Handler: h}
	ln := d.n.Target.Listen("tcp", net.JoinHostPort(netns.TargetIPv4.String(), port))
	var done sync.WaitGroup
	done.Go(func() {
		if id == nil {
			_ = server.Serve(ln)
			return
		}
		server.TLSConfig = id.config()
		_ = server.ServeTLS(ln, "", "")
	})
	t.Cleanup(func() { server.Close(); done.Wait() })
}

// wantInGuide fails if docs/using.md does not have the text: what is tried here
// is what people are told.
func wantInGuide(t *testing.T, text string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/using.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), text) {
		t.Errorf("docs/using.md does not say %s", text)
	}
}

// A nameWatch counts what a host sends to name servers, itself included.
type nameWatch struct {
	t      *testing.T
	h      *netns.Host
	before int // forgiven
}

func watchNames(t *testing.T, h *netns.Host) *nameWatch {
	t.Helper()
	h.Rules(`
table inet leaks {
	counter dns { }
	chain out {
		type filter hook output priority 0;
		udp dport { 53, 853, 5353 } ip daddr != 127.0.0.0/8 counter name "dns"
		udp dport { 53, 853, 5353 } meta nfproto ipv6 counter name "dns"
		udp dport 53 ip daddr 127.0.0.0/8 counter name "dns"
		tcp dport { 53, 853 } counter name "dns"
	}
}`)
	return &nameWatch{t: t, h: h}
}

// forgive takes the questions so far out of the count; there must be some.
func (w *nameWatch) forgive() {
	w.t.Helper()
	k := w.count()
	if k == 0 {
		w.t.Error("no question to a name server was seen where there was one")
	}
	w.before += k
}

// count gives how many packets there were so far.
func (w *nameWatch) count() int {
	w.t.Helper()
	out, err := w.h.Command("nft", "list", "counter", "inet", "leaks", "dns").CombinedOutput()
	_, rest, found := strings.Cut(string(out), "packets ")
	k, convErr := strconv.Atoi(strings.SplitN(rest, " ", 2)[0])
	if err != nil || !found || convErr != nil {
		w.t.Fatalf("count questions to name servers: %v: %s", err, out)
	}
	return k - w.before
}

// A pause stops what passes it, once, after a number of bytes, so that a move
// falls into the midst of a transfer however fast the machine is.
type pause struct {
	after   int64
	reached chan struct{} // closed when so many have passed
	resume  chan struct{} // closed to let the rest go on

	mu     sync.Mutex
	passed int64
}

func newPause(t *testing.T, after int64) *pause {
	p := &pause{after: after, reached: make(chan struct{}), resume: make(chan struct{})}
	t.Cleanup(p.release)
	return p
}

// release lets the rest go on.
func (p *pause) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.resume:
	default:
		close(p.resume)
	}
}

// pass counts bytes and waits where the pause is.
func (p *pause) pass(ctx context.Context, k int) {
	p.mu.Lock()
	before := p.passed
	p.passed += int64(k)
	there := before < p.after && p.passed >= p.after
	if there {
		close(p.reached)
	}
	p.mu.Unlock()
	if !there {
		return
	}
	select {
	case <-p.resume:
	case <-ctx.Done():
	}
}

// wait waits until the pause is reached, which p's end would keep it from.
func (p *pause) wait(t *testing.T, ctx context.Context, process *netns.Process) {
	t.Helper()
	select {
	case <-p.reached:
	case <-process.Done():
		t.Fatalf("it ended before the pause: %s%s", process.Stdout, process.Stderr)
	case <-ctx.Done():
		t.Fatalf("the transfer does not get to its middle: %s%s", process.Stdout, process.Stderr)
	}
}

// handler puts the pause into what h answers.
func (p *pause) handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&paused{w, p, r.Context()}, r)
	})
}

type paused struct {
	http.ResponseWriter
	p   *pause
	ctx context.Context
}

// Write writes in small pieces, so that the pause is where it shall be.
func (w *paused) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var k int
		k, err = w.ResponseWriter.Write(b[:min(len(b), 16<<10)])
		w.p.pass(w.ctx, k)
		n, b = n+k, b[k:]
	}
	return n, err
}

// blob gives size bytes that no program can compress.
func blob(t *testing.T, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	if _, err := streamSource().Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// An identity is a key and a certificate for webName, by an authority of the
// test's own.
type identity struct {
	certificate tls.Certificate
	authority   *x509.CertPool
	file        string // the authority's certificate, in PEM
}

func newIdentity(t *testing.T) *identity {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(c, by *x509.Certificate, pub *ecdsa.PublicKey, priv *ecdsa.PrivateKey) *x509.Certificate {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, by, pub, priv)
		if err == nil {
			c, err = x509.ParseCertificate(der)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	caKey, ownKey := key(), key()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca = sign(ca, ca, &caKey.PublicKey, caKey)
	own := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: webName},
		DNSNames: []string{webName}, IPAddresses: []net.IP{netns.TargetIPv4.AsSlice()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, &ownKey.PublicKey, caKey)
	id := &identity{
		certificate: tls.Certificate{Certificate: [][]byte{own.Raw}, PrivateKey: ownKey},
		authority:   x509.NewCertPool(),
		file:        filepath.Join(t.TempDir(), "authority.pem"),
	}
	id.authority.AddCert(ca)
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}); err != nil {
		t.Fatal(err)
	}
	write(t, id.file, b.String())
	return id
}

// config is for a server.
func (id *identity) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{id.certificate}}
}
