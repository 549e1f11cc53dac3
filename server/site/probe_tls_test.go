package site

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/websocket"
)

// hello gives the bytes of a ClientHello.
func hello(t *testing.T, config *tls.Config) string {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		tls.Client(there, config).Handshake() // fails when the pipe is closed
		there.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(here, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(here, body); err != nil {
		t.Fatal(err)
	}
	return string(head) + string(body)
}

// TestTLSLikeAPlainServer: what is wrong with a visitor's TLS, and how it ends, is
// as with a plain server. What is right differs in its random numbers; there the
// kinds and lengths of the first records are compared.
func TestTLSLikeAPlainServer(t *testing.T) {
	config, _ := certificate(t)
	good := hello(t, &tls.Config{ServerName: "www.example.org", NextProtos: []string{"h2", "http/1.1"}})
	change := func(at int, b ...byte) string {
		return good[:at] + string(b) + good[at+len(b):]
	}
	for name, p := range map[string]probe{
		"one byte":                  {{0, "\x16"}},
		"one byte, and the end":     {{0, "\x16"}, {0, ""}},
		"a record's header":         {{0, good[:5]}},
		"a record's header, slowly": {{9 * s, good[:3]}, {9 * s, good[3:5]}},
		"half a hello":              {{0, good[:100]}},
		"half a hello, the end":     {{0, good[:100]}, {s, ""}},
		"half a hello, slowly":      {{0, good[:100]}, {9 * s, good[100:200]}},
		"version 2":                 {{0, "\x16\x02\x00\x00\x10" + random(16)}},
		"version 9":                 {{0, "\x16\x09\x00\x00\x10" + random(16)}},
		"an empty record":           {{0, "\x16\x03\x01\x00\x00"}},
		"a record too long":         {{0, "\x16\x03\x01\xff\xff" + random(2000)}},
		"another message":           {{0, change(5, 2)}},
		"a hello of no length":      {{0, "\x16\x03\x01\x00\x04\x01\x00\x00\x00"}},
		"a hello of random bytes":   {{0, "\x16\x03\x01\x00\x44\x01\x00\x00\x40" + random(64)}},
		"a broken session":          {{0, change(43, 0xff)}},
		"no ciphers":                {{0, change(76, 0, 0)}},
		"an alert":                  {{0, good[:5] + "\x15\x03\x01\x00\x02\x02\x28"}},
		"only TLS 1.0":              {{0, hello(t, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10})}},
		"only TLS 1.1":              {{0, hello(t, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})}},
		"an unknown protocol":       {{0, hello(t, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"spdy/1"}})}},
		"only static RSA":           {{0, hello(t, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}})}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, config, true, p.visitor)
		})
	}
}

// A scan is a visitor whose handshake succeeds.
type scan struct {
	name   string
	config *tls.Config // nil: the usual one
	say    string
}

// TestScans compares what a visitor learns from whole handshakes, and behind them.
func TestScans(t *testing.T) {
	config, _ := certificate(t)
	get := "GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"
	h2 := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, c := range []scan{
		{name: "TLS 1.3", say: get},
		{name: "TLS 1.2", config: &tls.Config{MaxVersion: tls.VersionTLS12}, say: get},
		{name: "no name", say: get},
		{name: "some name", config: &tls.Config{ServerName: "www.example.org"}, say: get},
		{name: "an address", config: &tls.Config{ServerName: "192.0.2.1"}, say: get},
		{name: "HTTP/1.1", config: &tls.Config{NextProtos: []string{"http/1.1"}}, say: get},
		{name: "HTTP/2", config: &tls.Config{NextProtos: []string{"h2"}}, say: h2},
		{name: "HTTP/2, nothing", config: &tls.Config{NextProtos: []string{"h2"}}},
		{name: "nothing", say: ""},
		{name: "RFC 9329 inside", say: "IKETCP\x00\x0a\x00\x00\x00\x00abcd\r\n\r\n"},
		{name: "RFC 9329 inside, and nothing more", say: "IKETCP"},
		{name: "binary inside", say: "\x00\x01\x02\r\n\r\n"},
		{name: "TLS inside", say: "\x16\x03\x01\x00\x10" + random(16)},
		{name: "half a request", say: get[:20]},
		{name: "an upgrade elsewhere", say: "GET /chat HTTP/1.1\r\n" + upgradeLines + "\r\n"},
		{name: "an upgrade nearly there", say: "GET " + secret + "x HTTP/1.1\r\n" + upgradeLines + "\r\n"},
		{name: "a huge header", say: "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 32<<10) + "\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := c.look(t, func(ln net.Listener) func() {
				return port(config, ln, transporttest.NewRecorder(), Options{})
			})
			want := c.look(t, func(ln net.Listener) func() {
				server := plainServer(Page())
				done := make(chan struct{})
				go func() { defer close(done); server.Serve(tls.NewListener(ln, config)) }()
				return func() { server.Close(); <-done }
			})
			if got != want {
				t.Errorf("sees\n%s\nat a plain server\n%s", got, want)
			}
		})
	}
}

// frames gives the frames of HTTP/2 (RFC 9113, Section 4.1) in an order of their own:
// a server's settings and what it says to the visitor's pass each other.
func frames(b []byte) (all []string) {
	for len(b) >= 9 {
		n := min(9+int(b[0])<<16+int(b[1])<<8+int(b[2]), len(b))
		all, b = append(all, string(b[:n])), b[n:]
	}
	slices.Sort(all)
	return append(all, string(b))
}

// look tells all that a scan sees of a server, and when.
func (c scan) look(t *testing.T, serve func(net.Listener) (stop func())) (seen string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		stop := serve(ln)
		defer func() { stop(); time.Sleep(time.Minute) }()
		conn, err := n.DialTCP(t.Context(), netip.Addr{}, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begin := time.Now()
		var b strings.Builder
		config := c.config.Clone()
		if config == nil {
			config = &tls.Config{}
		}
		config.InsecureSkipVerify = true
		secure := tls.Client(conn, config)
		err = secure.Handshake()
		state := secure.ConnectionState()
		fmt.Fprintf(&b, "handshake %v: %x, cipher %x, protocol %q", err, state.Version, state.CipherSuite, state.NegotiatedProtocol)
		for _, cert := range state.PeerCertificates {
			fmt.Fprintf(&b, ", certificate %x", cert.Raw[len(cert.Raw)-8:])
		}
		go io.WriteString(secure, c.say)
		var got bytes.Buffer
		_, err = io.Copy(&got, secure)
		text := fmt.Sprintf("%q", got.String())
		if state.NegotiatedProtocol == "h2" {
			text = fmt.Sprintf("%q", frames(got.Bytes()))
		}
		fmt.Fprintf(&b, "; then %s, %v after %v", text, err, time.Since(begin))
		seen = b.String()
	})
	return seen
}

// A recording keeps what leaves by its connections.
type recording struct {
	*transporttest.Memory
	mu  sync.Mutex
	out bytes.Buffer
}

type recordedConn struct {
	net.Conn
	r *recording
}

func (r *recording) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := r.Memory.DialTCP(ctx, local, remote)
	return recordedConn{c, r}, err
}

func (c recordedConn) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.out.Write(b)
	return c.Conn.Write(b)
}

// TestReplayedTLS: what an observer has kept of a client's whole TLS connection, the
// upgrade inside, ends as at a plain server, by the kinds of records and the moment.
func TestReplayedTLS(t *testing.T) {
	config, hash := certificate(t)
	var kept string
	synctest.Test(t, func(t *testing.T) {
		r := &recording{Memory: transporttest.NewMemory()}
		ln, err := r.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer port(config, ln, transporttest.NewRecorder(), Options{})()
		c, err := websocket.New(websocket.Options{TLS: true, CertHash: hash, Path: secret}).Dial(t.Context(), transports.Opening{
			Network: r, Remote: address, Handler: transporttest.NewRecorder(),
			First: func(transports.Description) []transports.Packet {
				return []transports.Packet{{Kind: transports.KindESP, Data: make([]byte, 300)}}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		kept = r.out.String()
	})
	for _, n := range []int{len(kept), len(kept) - 1, len(kept) / 2, 200} {
		look := func(serve func(net.Listener) func()) (kinds string) {
			synctest.Test(t, func(t *testing.T) {
				n2 := transporttest.NewMemory()
				ln, err := n2.ListenTCP(t.Context(), address)
				if err != nil {
					t.Fatal(err)
				}
				stop := serve(ln)
				defer func() { stop(); time.Sleep(time.Minute) }()
				for _, s := range watch(t, n2, probe{{0, kept[:n]}}.visitor) {
					kinds += fmt.Sprintf("after %v:", s.at)
					if s.text == io.EOF.Error() {
						kinds += " " + s.text
						break
					}
					for b := s.text; len(b) >= 5; {
						kinds += fmt.Sprintf(" %d", b[0])
						b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):]
					}
				}
			})
			return kinds
		}
		got := look(func(ln net.Listener) func() { return port(config, ln, transporttest.NewRecorder(), Options{}) })
		want := look(func(ln net.Listener) func() {
			server := plainServer(Page())
			done := make(chan struct{})
			go func() { defer close(done); server.Serve(tls.NewListener(ln, config)) }()
			return func() { server.Close(); <-done }
		})
		if got != want {
			t.Errorf("%d bytes of %d: %s; from a plain server: %s", n, len(kept), got, want)
		}
	}
}
