package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/ipsec/knock"
	"github.com/godwit-net/godwit/server"
	"github.com/godwit-net/godwit/server/site"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/websocket"
)

const secretPath = "/nobody-guesses-this"

// patience is for what comes sooner or later.
const patience = time.Minute

// A stealthy server listens on the loopback and lets one client in.
type stealthy struct {
	at        netip.AddrPort
	key       ed25519.PublicKey
	clientKey ed25519.PrivateKey
}

func newStealthy(t *testing.T) *stealthy {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	clientPublic, clientKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, certKey.Public(), certKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{
		Network: system.New(), Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		PrivateKey: private, TLSCertificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: certKey},
		WebSocketPath: secretPath, Stealth: true, Pool4: netip.MustParsePrefix("10.77.0.0/16"),
		Encapsulations: []transports.Name{transports.UDP, transports.TCP, transports.WebSocket},
		Lookup: func(key ed25519.PublicKey) (*server.User, error) {
			if !key.Equal(clientPublic) {
				return nil, io.EOF
			}
			return &server.User{Name: "laptop", Inner4: netip.MustParseAddr("10.77.0.2")}, nil
		},
		Egress: func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF },
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Run)
	return &stealthy{at: s.Addr(), key: public, clientKey: clientKey}
}

// run runs something until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A recorder keeps the first flights that leave by its sockets.
type recorder struct {
	transports.Network
	mu        sync.Mutex
	datagrams [][]byte
	streams   [][]byte // the first write of each
}

type recorded struct {
	net.Conn
	keep func([]byte)
}

func (r recorded) Write(b []byte) (int, error) {
	r.keep(bytes.Clone(b))
	return r.Conn.Write(b)
}

func (r *recorder) DialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := r.Network.DialUDP(ctx, local, remote)
	return recorded{c, func(b []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.datagrams = append(r.datagrams, b)
	}}, err
}

func (r *recorder) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := r.Network.DialTCP(ctx, local, remote)
	var once sync.Once
	return recorded{c, func(b []byte) {
		once.Do(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.streams = append(r.streams, b)
		})
	}}, err
}

// connect runs a client until it has registered by every encapsulation, and gives
// the first flights that an observer has seen.
func (s *stealthy) connect(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{Network: system.New()}
	c, err := client.New(client.Config{
		Network: r, Server: s.at.String(), ServerKey: s.key, PrivateKey: s.clientKey,
		Mark: knock.NewKey(s.key, secretPath).Mark,
		// Without TLS, for an observer to see something.
		Transports: []transports.Transport{udp.New(udp.Options{NoOffload: true}), tcp.New(), websocket.New(websocket.Options{Path: secretPath, Host: "vpn.example.org"})},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, c.Run)
	// What has connected need not be opened anew to register, but to move.
	number := registered(t, c, 0)
	c.Move()
	registered(t, c, number)
	return r
}

// registered waits for a registration after number that was answered by everything.
func registered(t *testing.T, c *client.Client, number uint32) uint32 {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		status := c.Status()
		for _, reg := range status.Registrations {
			answered := 0
			for _, copy := range reg.Copies {
				if copy.Answered {
					answered++
				}
			}
			if reg.Number > number && answered == 3 {
				return reg.Number
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the client has not registered by everything: %+v", status)
		}
	}
}

// first makes a first IKE message; mark may be nil.
func (s *stealthy) first(t *testing.T, mark func(time.Time, uint64, []byte) []byte) []byte {
	t.Helper()
	id, err := ike.KeyIdentity(s.clientKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	i, err := ike.NewInitiator(ike.InitiatorConfig{
		Config:  ike.Config{Local: id, PrivateKey: s.clientKey, NewSPI: func() uint32 { return 1000 }},
		PeerKey: s.key, Mark: mark,
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range i.Events() {
		if send, ok := e.(ike.Send); ok {
			return send.Message
		}
	}
	t.Fatal("no first message")
	return nil
}

// strangers are what somebody sends who has no key, as one frame or datagram each,
// the marker included.
func (s *stealthy) strangers(t *testing.T) map[string][]byte {
	t.Helper()
	marked := func(b []byte) []byte { return append(make([]byte, transports.MarkerSize), b...) }
	change := func(b []byte, f func([]byte)) []byte { b = bytes.Clone(b); f(b); return b }
	plain := s.first(t, nil)
	return map[string][]byte{
		"a first message":       marked(plain),
		"with another server's": marked(s.first(t, knock.NewKey(s.key, "/other").Mark)),
		"of an hour ago": marked(s.first(t, func(now time.Time, spi uint64, b []byte) []byte {
			return knock.NewKey(s.key, secretPath).Mark(now.Add(-time.Hour), spi, b)
		})),
		"half of it":               marked(plain[:len(plain)/2]),
		"of version 3":             marked(change(plain, func(b []byte) { b[17] = 0x30 })),
		"with a critical payload":  marked(change(plain, func(b []byte) { b[16], b[29] = 99, 0x80 })),
		"IKE_AUTH":                 marked(change(plain, func(b []byte) { b[15], b[18] = 1, 35 })),
		"INFORMATIONAL":            marked(change(plain, func(b []byte) { b[15], b[18] = 1, 37 })),
		"ESP":                      append([]byte{1, 2, 3, 4, 0, 0, 0, 1}, make([]byte, 100)...),
		"NAT-keepalive":            {0xff},
		"empty":                    {},
		"a line":                   []byte("\r\n\r\nxxxxxxxxxxxxxxxx\r\n"),
		"something long with ends": bytes.Repeat([]byte("abc\r\n"), 200),
	}
}

// TestStealth: a client is let in by every encapsulation, and nobody else has an
// answer that a web server would not give, replays of that client's own first
// flights included.
func TestStealth(t *testing.T) {
	s := newStealthy(t)
	r := s.connect(t)
	t.Run("udp", func(t *testing.T) { s.testUDP(t, r) })
	t.Run("tcp", func(t *testing.T) { s.testTCP(t, r) })
}

func (s *stealthy) testUDP(t *testing.T, r *recorder) {
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, net.UDPAddrFromAddrPort(s.at))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.mu.Lock()
	replays := slices.Clone(r.datagrams)
	r.mu.Unlock()
	if len(replays) < 3 {
		t.Fatalf("%d datagrams were recorded", len(replays))
	}
	for _, b := range s.strangers(t) {
		replays = append(replays, b)
	}
	for _, b := range replays {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if len(b) > 10 {
			c.Write(b[:len(b)/2])
		}
	}
	// The port is open after all: the first thing to come back is the answer to what
	// was sent last, by somebody who knows the keys. A datagram may be lost.
	msg := s.first(t, knock.NewKey(s.key, secretPath).Mark)
	buf := make([]byte, 64<<10)
	for deadline := time.Now().Add(patience); ; {
		if _, err := c.Write(append(make([]byte, transports.MarkerSize), msg...)); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatalf("who knows the keys has no answer: %v", err)
			}
			continue
		}
		if got := buf[:n]; !bytes.Equal(got[4:12], msg[:8]) {
			t.Fatalf("a stranger is answered with % x", got[:min(n, 40)])
		}
		return
	}
}

var date = regexp.MustCompile(`(?m)^Date: .*$`)

// exchange sends b and gives all that comes back until the end.
func exchange(t *testing.T, at netip.AddrPort, b []byte) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := d.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		return date.ReplaceAllString(string(all), "Date:") + " and " + err.Error()
	}
	return date.ReplaceAllString(string(all), "Date:")
}

func (s *stealthy) testTCP(t *testing.T, r *recorder) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	plain := &http.Server{Handler: site.Page(), ReadHeaderTimeout: site.HeaderTimeout, MaxHeaderBytes: site.MaxHeader, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); plain.Serve(ln) }()
	defer func() { plain.Close(); <-done }()
	at := netip.MustParseAddrPort(ln.Addr().String())

	probes := map[string][]byte{"the prefix alone": []byte("IKETCP"), "the prefix and a line": []byte("IKETCP\r\n\r\n"), "the prefix as a method": []byte("IKETCP / HTTP/1.1\r\nHost: x\r\n\r\n")}
	frame := func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte("IKETCP"), uint16(len(b)+2)), b...)
	}
	for name, b := range s.strangers(t) {
		probes["a stranger: "+name] = frame(b)
	}
	r.mu.Lock()
	kinds := map[string]int{}
	for _, b := range r.streams {
		kind := string(b[:4])
		kinds[kind]++
		probes[fmt.Sprintf("replay %d of %q", kinds[kind], kind)] = b
		probes[fmt.Sprintf("half of replay %d of %q", kinds[kind], kind)] = b[:len(b)/2]
	}
	r.mu.Unlock()
	if kinds["IKET"] < 2 || kinds["GET "] < 2 {
		t.Fatalf("first flights recorded: %v", kinds)
	}
	var took, plainTook []time.Duration
	for name, b := range probes {
		begin := time.Now()
		got := exchange(t, s.at, b)
		middle := time.Now()
		want := exchange(t, at, b)
		took, plainTook = append(took, middle.Sub(begin)), append(plainTook, time.Since(middle))
		if got != want {
			t.Errorf("%s is answered with %q, by a plain server with %q", name, got, want)
		}
	}
	for who, d := range map[string][]time.Duration{"this server": took, "a plain server": plainTook} {
		slices.Sort(d)
		t.Logf("%s ends %d connections after %v at least, %v in the middle, %v at most", who, len(d), d[0], d[len(d)/2], d[len(d)-1])
	}
	msg := s.first(t, knock.NewKey(s.key, secretPath).Mark)
	c, err := net.Dial("tcp", s.at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write(frame(append(make([]byte, transports.MarkerSize), msg...)))
	got := make([]byte, 14)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got[6:], msg[:8]) {
		t.Errorf("who knows the keys is answered with %q, %v", got, err)
	}
}
