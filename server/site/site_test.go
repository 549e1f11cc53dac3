package site

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/portmux"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "/nobody-guesses-this"

var address = netip.MustParseAddrPort("192.0.2.1:443")

func certificate(t testing.TB) (*tls.Config, [32]byte) {
	c, hash := transporttest.Certificate(t)
	return &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: Protocols()}, hash
}

// port serves all encapsulations that stand on TCP, and a site, on one port.
func port(config *tls.Config, ln net.Listener, h transports.Handler, o Options) (stop func()) {
	m := portmux.New(ln, portmux.Options{TLS: config, Trusted: o.Trusted})
	o.Mounts = append(o.Mounts, websocket.NewHandler(secret, h))
	listeners := []transports.Listener{m, tcp.NewListener(m.Raw(), h), New(m.HTTP(), o)}
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { l.Serve() })
	}
	return func() {
		for _, l := range listeners {
			l.Close()
		}
		wg.Wait()
	}
}

// TestSuites: each encapsulation passes the whole suite through the one port.
func TestSuites(t *testing.T) {
	config, hash := certificate(t)
	for name, tr := range map[string]transports.Transport{
		"tcp":   tcp.New(),
		"plain": websocket.New(websocket.Options{Path: secret}),
		"tls":   websocket.New(websocket.Options{Path: secret, TLS: true, CertHash: hash}),
	} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, transporttest.Suite{
				Transport: tr,
				Stream:    true,
				Serve: func(t testing.TB, n transports.Network, local netip.AddrPort, h transports.Handler) (netip.AddrPort, func()) {
					ln, err := n.ListenTCP(t.Context(), local)
					if err != nil {
						t.Fatal(err)
					}
					return transports.AddrPort(ln.Addr()), port(config, ln, h, Options{})
				},
			})
		})
	}
}

// A plainServer is what a visitor is to take godwit for. It is written out, so that
// a change of New shows.
func plainServer(content http.Handler) *http.Server {
	return &http.Server{
		Handler:           content,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

// A said is what came from a server, and when, until it closed the connection.
type said struct {
	text string
	at   time.Duration
}

// watch connects, does what a visitor does, and notes what comes back.
func watch(t *testing.T, n *transporttest.Memory, visitor func(net.Conn)) (all []said) {
	conn, err := n.DialTCP(t.Context(), netip.Addr{}, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); visitor(conn) }()
	defer func() { conn.Close(); <-done }()
	buf := make([]byte, 64<<10)
	for {
		k, err := conn.Read(buf)
		switch at := time.Since(begin); {
		case k == 0:
		case len(all) > 0 && all[len(all)-1].at == at: // the same, in one piece or in two
			all[len(all)-1].text += string(buf[:k])
		default:
			all = append(all, said{string(buf[:k]), at})
		}
		if err != nil {
			return append(all, said{err.Error(), time.Since(begin)})
		}
	}
}

// A probe is what somebody sends to find out what kind of server this is: pieces,
// each with a pause before it; the empty piece ends the way out.
type probe []struct {
	after time.Duration
	text  string
}

func (p probe) visitor(c net.Conn) {
	for _, piece := range p {
		time.Sleep(piece.after)
		if piece.text == "" {
			c.(interface{ CloseWrite() error }).CloseWrite()
			return
		}
		if _, err := io.WriteString(c, piece.text); err != nil {
			return
		}
	}
}

const s = time.Second

// random is what a scanner sends that tells nothing.
func random(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*167 + i>>3)
	}
	return string(b)
}

const upgradeLines = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

var plainProbes = map[string]probe{
	"nothing":                    {},
	"nothing, and the end":       {{0, ""}},
	"one letter":                 {{0, "G"}},
	"a letter of ours":           {{0, "I"}},
	"a letter of ours, late":     {{9 * s, "I"}},
	"a letter, and the end":      {{0, "I"}, {s, ""}},
	"nearly ours":                {{0, "IKETC"}, {3 * s, "Q / HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"nearly ours, slowly":        {{0, "IKE"}, {4 * s, "T"}, {4 * s, "A /"}},
	"binary":                     {{0, "\x00\x01\x02\x03"}},
	"binary with an end of line": {{0, "\x00\x01\r\n\r\n"}},
	"random":                     {{0, random(3000)}},
	"random, and the end":        {{0, random(100)}, {0, ""}},
	"ssh":                        {{0, "SSH-2.0-OpenSSH_9.9\r\n"}},
	"SSL 2":                      {{0, "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"}},
	"PROXY protocol":             {{0, "PROXY TCP4 192.0.2.7 192.0.2.1 1000 443\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"PROXY protocol 2":           {{0, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x01\xbb\x01\xbbGET / HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"front page":                 {{0, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"slow header":                {{0, "GET / HT"}, {9 * s, "TP/1.1\r\nHo"}, {9 * s, "st: x\r\n\r\n"}},
	"two requests":               {{0, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"a second one, late":         {{0, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}, {50 * s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"a second one, half":         {{0, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}, {50 * s, "GET / HT"}},
	"no host":                    {{0, "GET / HTTP/1.1\r\n\r\n"}},
	"HTTP/1.0":                   {{0, "GET / HTTP/1.0\r\n\r\n"}},
	"HTTP/3.0":                   {{0, "GET / HTTP/3.0\r\nHost: x\r\n\r\n"}},
	"HTTP/2 without TLS":         {{0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}},
	"small letters":              {{0, "get / http/1.1\r\nHost: x\r\n\r\n"}},
	"OPTIONS":                    {{0, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"CONNECT":                    {{0, "CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"TRACE":                      {{0, "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"unknown method":             {{0, "GODWIT / HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"POST":                       {{0, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"}},
	"POST, chunked":              {{0, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"}},
	"POST, to be continued":      {{0, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"}, {s, "hello"}},
	"huge header":                {{0, "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 32<<10) + "\r\n\r\n"}},
	"huge path":                  {{0, "GET /" + strings.Repeat("a", 32<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"smuggling":                  {{0, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"header without a colon":     {{0, "GET / HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n"}},
	"upgrade elsewhere":          {{0, "GET /chat HTTP/1.1\r\n" + upgradeLines + "\r\n"}},
	"upgrade, nearly there":      {{0, "GET " + secret[:len(secret)-1] + " HTTP/1.1\r\n" + upgradeLines + "\r\n"}},
	"upgrade, one too many":      {{0, "GET " + secret + "/ HTTP/1.1\r\n" + upgradeLines + "\r\n"}},
	"upgrade, other case":        {{0, "GET " + strings.ToUpper(secret) + " HTTP/1.1\r\n" + upgradeLines + "\r\n"}},
	"the path, no upgrade":       {{0, "GET " + secret + " HTTP/1.1\r\nHost: x\r\n\r\n"}},
	"the path, HEAD":             {{0, "HEAD " + secret + " HTTP/1.1\r\n" + upgradeLines + "\r\n"}},
	"the path, POST":             {{0, "POST " + secret + " HTTP/1.1\r\n" + upgradeLines + "Content-Length: 3\r\n\r\nabc"}},
	"the path, HTTP/1.0":         {{0, "GET " + secret + " HTTP/1.0\r\n" + upgradeLines + "\r\n"}},
	"the path, no key":           {{0, "GET " + secret + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"}},
	"the path, old version":      {{0, "GET " + secret + " HTTP/1.1\r\n" + strings.Replace(upgradeLines, "13", "8", 1) + "\r\n"}},
	"the path, a broken flight":  {{0, "GET " + secret + " HTTP/1.1\r\n" + upgradeLines + "Cookie: session=AAAA\r\n\r\n"}},
}

// TestLikeAPlainServer: whoever has no key is told byte for byte, and at the same
// moment, what a plain server of the same site tells, and left at the same moment.
// Between the moment's clocks there is nothing: time is virtual.
func TestLikeAPlainServer(t *testing.T) {
	config, _ := certificate(t)
	for name, p := range plainProbes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, config, false, p.visitor)
		})
	}
}

// compare lets a visitor come to godwit and to a plain server, with TLS or without.
func compare(t *testing.T, config *tls.Config, secure bool, visitor func(net.Conn)) {
	t.Helper()
	var got, want []said
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		h := transporttest.NewRecorder()
		stop := port(config, ln, h, Options{})
		defer func() { stop(); time.Sleep(time.Minute) }() // connections linger
		got = watch(t, n, visitor)
		if k := len(h.Packets(0)); k > 0 {
			t.Errorf("%d packets were delivered", k)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		server := plainServer(Page())
		done := make(chan struct{})
		if secure {
			ln = tls.NewListener(ln, config)
		}
		go func() { defer close(done); server.Serve(ln) }()
		defer func() { server.Close(); <-done; time.Sleep(time.Minute) }()
		want = watch(t, n, visitor)
	})
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("only a plain server says %q after %v", want[i].text, want[i].at)
		case i >= len(want):
			t.Fatalf("a plain server does not say %q after %v", got[i].text, got[i].at)
		case got[i] != want[i]:
			t.Fatalf("says %q after %v, a plain server %q after %v", got[i].text, got[i].at, want[i].text, want[i].at)
		}
	}
}

func tlsClient(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) }

// TestNewcomers: visitors who stop in the middle of TLS's handshake keep nobody out,
// however many they are.
func TestNewcomers(t *testing.T) {
	config, _ := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		stop := port(config, ln, transporttest.NewRecorder(), Options{})
		defer func() { stop(); time.Sleep(time.Minute) }()
		begin := time.Now()
		var silent []net.Conn
		for range maxNewcomers + 10 {
			c, err := n.DialTCP(t.Context(), netip.Addr{}, address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "\x16\x03\x01")
			synctest.Wait() // in order
			silent = append(silent, c)
		}
		for i := range 10 {
			if _, err := io.ReadAll(silent[i]); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("the oldest made room after %v", d)
		}
		for _, c := range silent[10:] {
			if _, err := io.ReadAll(c); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(begin); d != HeaderTimeout {
			t.Errorf("the others were left after %v", d)
		}
	})
}
