//go:build virtualtime

package handover

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/server"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/websocket"
)

const (
	serverAt = "198.51.100.2:443"
	targetAt = "192.0.2.10:7"
	wsPath   = "/a-path-that-nobody-guesses"
)

// How both ends are set up.
var (
	offload  = flag.Bool("offload", true, "let many packets cross the stack at once")
	recovery = flag.Bool("recovery", true, "send again below TCP what is lost")
)

// A world is a server, a target behind it, and what clients attach to.
type world struct {
	t      *testing.T
	in     *lab.Internet
	wifi   *lab.Network // NAT that keeps ports
	cell   *lab.Network // NAPT
	host   *lab.Host    // the server's
	target *lab.Host

	ctx   context.Context
	end   context.CancelFunc
	tasks sync.WaitGroup

	ikeLife, childLife time.Duration   // of both ends; 0 means the defaults
	postQuantum        ike.PostQuantum // of both ends
	server             *server.Server
	stopServer         context.CancelFunc

	serverKey ed25519.PrivateKey
	cloned    ed25519.PrivateKey // of all that join, if set
	cert      tls.Certificate
	wrap      func(transports.Transport) transports.Transport // of clients that join; nil leaves them
	only      []transports.Transport                          // of clients that join; the usual ones if nil
	adjust    func(*client.Config)                            // of clients that join, if set
	takes     []transports.Name                               // what the server takes; the default if nil
	allowPort func(user, network string, at netip.AddrPort) bool
	log       io.Writer  // takes what is logged at level info, if set
	ended     chan error // takes what clients end with, if set

	mu    sync.Mutex
	users map[string]*server.User // by public key
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "lab"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// newWorld builds two access networks whose round trip to the server is r, and
// starts the server and an echo service at the target.
func newWorld(t *testing.T, r time.Duration, options ...func(*world)) *world {
	return newSeededWorld(t, 1, r, options...)
}

// newSeededWorld is newWorld with the seed of the network's luck.
func newSeededWorld(t *testing.T, seed uint64, r time.Duration, options ...func(*world)) *world {
	w := &world{t: t, in: lab.New(seed), cert: certificate(), users: make(map[string]*server.User)}
	w.ctx, w.end = context.WithCancel(t.Context())
	_, w.serverKey, _ = ed25519.GenerateKey(rand.Reader)
	w.wifi = w.in.AddNetwork("wifi", lab.NetworkConfig{
		Prefixes: lab.Prefixes("10.1.0.0/24"), Link: lab.Link{Delay: r / 2},
		NAT: &lab.NAT{Outside: lab.Addrs("203.0.113.1")},
	})
	w.cell = w.in.AddNetwork("cell", lab.NetworkConfig{
		Prefixes: lab.Prefixes("10.2.0.0/24"), Link: lab.Link{Delay: r / 2},
		NAT: &lab.NAT{Outside: lab.Addrs("203.0.113.2"), ChangePort: true},
	})
	w.host = w.in.AddHost("server")
	w.host.Attach("eth0", w.in.Core(), lab.Addrs("198.51.100.2")...)
	w.target = w.in.AddHost("target")
	w.target.Attach("eth0", w.in.Core(), lab.Addrs("192.0.2.10")...)
	for _, o := range options {
		o(w)
	}
	w.serve()
	return w
}

// serve starts a server with the world's key.
func (w *world) serve() {
	s, err := server.New(server.Config{
		Logger:         w.logger("server"),
		Network:        w.host,
		Listen:         netip.MustParseAddrPort(serverAt),
		Encapsulations: w.takes,
		PrivateKey:     w.serverKey,
		TLSCertificate: w.cert,
		WebSocketPath:  wsPath,
		Pool4:          netip.MustParsePrefix("10.77.0.0/16"),
		Pool6:          netip.MustParsePrefix("fd77::/64"),
		Lookup:         w.lookup,
		NoOffload:      !*offload,
		NoRecovery:     !*recovery,
		IKELifetime:    w.ikeLife,
		ChildLifetime:  w.childLife,
		PostQuantum:    w.postQuantum,
		AllowPort:      w.allowPort,
		Egress: func(ctx context.Context, _, address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			return w.host.DialTCP(ctx, netip.Addr{}, to)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.server = s
	ctx, stop := context.WithCancel(w.ctx)
	done := make(chan struct{})
	w.stopServer = func() { stop(); <-done }
	w.tasks.Go(func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			w.t.Errorf("server: %v", err)
		}
	})
}

func (w *world) logger(who string) *slog.Logger {
	if w.log != nil {
		return slog.New(slog.NewTextHandler(w.log, nil)).With("who", who)
	}
	if os.Getenv("GODWIT_LAB_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", who)
}

func (w *world) lookup(key ed25519.PublicKey) (*server.User, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[string(key)]; u != nil {
		return u, nil
	}
	return nil, errors.New("unknown key")
}

// close ends everything; a goroutine that stays makes the bubble panic.
func (w *world) close() {
	w.end()
	w.tasks.Wait()
	w.in.Close()
}

// A mobile is a host with a client.
type mobile struct {
	w      *world
	host   *lab.Host
	client *client.Client
	key    ed25519.PrivateKey

	resumed chan<- struct{} // tells the client that its host has slept
}

// join adds a host in the wifi network and starts its client.
func (w *world) join(name string, number byte) *mobile {
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	if w.cloned != nil {
		public, private = w.cloned.Public().(ed25519.PublicKey), w.cloned
	}
	w.mu.Lock()
	w.users[string(public)] = &server.User{
		Name:   name,
		Inner4: netip.AddrFrom4([4]byte{10, 77, 0, number}),
		Inner6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 15: number}),
	}
	w.mu.Unlock()
	h := w.in.AddHost(name)
	h.Attach("if0", w.wifi)
	resumed := make(chan struct{}, 1)
	list := []transports.Transport{
		udp.New(udp.Options{}),
		tcp.New(),
		websocket.New(websocket.Options{
			TLS: true, Host: "lab", Path: wsPath, CertHash: sha256.Sum256(w.cert.Certificate[0]),
		}),
	}
	if w.only != nil {
		list = w.only
	}
	if w.wrap != nil {
		for i, t := range list {
			list[i] = w.wrap(t)
		}
	}
	config := client.Config{
		Logger:       w.logger(name),
		Network:      h,
		Transports:   list,
		Server:       serverAt,
		ServerKey:    w.serverKey.Public().(ed25519.PublicKey),
		PrivateKey:   private,
		Changes:      h.Changes(),
		LocalAddress: h.LocalAddress,
		Attachment:   h.Attachment,
		Interfaces:   h.Interfaces,
		Resumed:      resumed,
		HasAddress:   func(a netip.Addr) bool { return slices.Contains(h.Addresses(), a) },

		NoOffload:     !*offload,
		NoRecovery:    !*recovery,
		IKELifetime:   w.ikeLife,
		ChildLifetime: w.childLife,
		PostQuantum:   w.postQuantum,
	}
	if w.adjust != nil {
		w.adjust(&config)
	}
	c, err := client.New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	m := &mobile{w: w, host: h, client: c, key: private, resumed: resumed}
	w.tasks.Go(func() {
		err := c.Run(w.ctx)
		switch {
		case w.ended != nil:
			w.ended <- err
		case err != nil:
			w.t.Errorf("client %s: %v", name, err)
		}
	})
	return m
}

// settle waits until the registration rounds have ended.
func settle() {
	synctest.Wait()
	time.Sleep(10 * time.Second)
	synctest.Wait()
}
