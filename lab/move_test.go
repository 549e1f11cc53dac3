package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab"
)

func isErr(err, want error) bool { return errors.Is(err, want) }

func told(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestMove(t *testing.T) {
	run(t, nil, func(w *world) {
		cafe := w.AddNetwork("cafe", lab.NetworkConfig{
			Prefixes: lab.Prefixes("10.9.0.0/24"), Link: lab.Link{Delay: 45 * ms}, NAT: &lab.NAT{Outside: lab.Addrs("198.51.100.50"), ChangePort: true},
		})
		changes := w.client.Changes()
		s := w.listenUDP()
		defer s.Close()
		old := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer old.Close()
		must(old.Write([]byte("1")))
		_, from := readFrom(s)

		// One datagram each way is in the air when the old network goes.
		must(s.WriteToUDPAddrPort([]byte("lost"), from))
		must(old.Write([]byte("2")))
		time.Sleep(R / 4)
		if told(changes) {
			t.Error("told of a change that was none")
		}
		w.client.Move("wlan0", cafe)
		if !told(changes) || told(changes) {
			t.Error("not told of the change once")
		}
		if got, _ := readFrom(s); got != "2" {
			t.Errorf("what had left did not arrive, got %q", got)
		}
		old.SetReadDeadline(time.Now().Add(2 * R))
		_, err := read(old)
		w.wantErr("read on the old address", err, os.ErrDeadlineExceeded)
		if n := w.dropped(lab.ByAddress); n != 1 {
			t.Errorf("%d packets lost for want of the address, want 1", n)
		}
		_, err = old.Write([]byte("3"))
		w.wantErr("send from the old address", err, syscall.EADDRNOTAVAIL)

		// The new network has another delay: 100 ms there and back.
		clock := lab.NewClock(100 * ms)
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer c.Close()
		must(c.Write([]byte("4")))
		_, from = readFrom(s)
		w.wantElapsed("from the new network", clock, 0.5)
		if from.String() != "198.51.100.50:61001" {
			t.Errorf("seen as %v", from)
		}

		w.client.Detach("wlan0")
		_, err = c.Write(nil)
		w.wantErr("send from nowhere", err, syscall.ENETUNREACH)
		_, err = w.client.DialTCP(ctx, netip.Addr{}, server443)
		w.wantErr("dial from nowhere", err, syscall.ENETUNREACH)
	})
}

func TestPreference(t *testing.T) {
	run(t, nil, func(w *world) {
		lte := w.AddNetwork("lte", lab.NetworkConfig{Prefixes: lab.Prefixes("10.64.0.0/16")})
		local := func() string { return must(w.client.LocalAddress(serverAddr)).String() }
		changes := w.client.Changes()
		w.client.Attach("wwan0", lte)
		if got := local(); got != "192.168.1.2" {
			t.Errorf("second network is preferred: %v", got)
		}
		w.client.Prefer("wwan0")
		if got := local(); got != "10.64.0.2" {
			t.Errorf("local address %v", got)
		}
		// The other one still works for who asks for it.
		s := w.listenUDP()
		defer s.Close()
		c := must(w.client.DialUDP(ctx, lab.Addrs("192.168.1.2")[0], server443))
		defer c.Close()
		must(c.Write(nil))
		if _, from := readFrom(s); from.Addr() != lab.Addrs("198.51.100.7")[0] {
			t.Errorf("seen as %v", from)
		}
		if !told(changes) || told(changes) {
			t.Error("two changes that nobody received are not one")
		}
		if got, want := w.client.Addresses(), lab.Addrs("10.64.0.2", "192.168.1.2", "2001:db8:1::2"); !slices.Equal(got, want) {
			t.Errorf("addresses %v, want %v", got, want)
		}
	})
}

// A writer whose peer has moved away fills its buffer, waits, and is freed by
// Close; after a quarter of an hour TCP gives up by itself.
func TestTCPToAVanishedPeer(t *testing.T) {
	for _, ending := range []string{"closed", "given up"} {
		t.Run(ending, func(t *testing.T) {
			run(t, nil, func(w *world) {
				c, s := w.pair()
				defer c.Close()
				w.client.Detach("wlan0")
				start := time.Now()
				if ending == "closed" {
					time.AfterFunc(time.Minute, func() { s.Close() })
				}
				n, err := s.Write(make([]byte, 1<<20))
				if n != 256<<10 {
					t.Errorf("%d bytes were taken, want one buffer", n)
				}
				took := time.Since(start)
				if ending == "closed" {
					w.wantErr("write", err, net.ErrClosed)
					if took != time.Minute {
						t.Errorf("freed after %v", took)
					}
					return
				}
				w.wantErr("write", err, syscall.ETIMEDOUT)
				if took < 15*time.Minute || took > 17*time.Minute {
					t.Errorf("gave up after %v", took)
				}
				s.Close()
			})
		})
	}
}

// TCP goes on when the same address comes back.
func TestTCPOutage(t *testing.T) {
	run(t, nil, func(w *world) {
		c, s := w.pair()
		defer c.Close()
		defer s.Close()
		addrs := w.client.Addresses()
		w.client.Detach("wlan0")
		must(s.Write([]byte("hello")))
		time.Sleep(10 * time.Second)
		w.client.Attach("wlan0", w.home, addrs...)
		if got, err := read(c); got != "hello" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

func certificate() tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"lab.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSTakesTwoRoundTrips(t *testing.T) {
	run(t, func(c *lab.NetworkConfig) { c.Firewall = lab.OnlyTLS443 }, func(w *world) {
		l := tls.NewListener(must(w.server.ListenTCP(ctx, server443)), &tls.Config{Certificates: []tls.Certificate{certificate()}})
		defer l.Close()
		go func() {
			c := must(l.Accept())
			defer c.Close()
			io.Copy(c, c)
		}()
		clock := lab.NewClock(R)
		c := tls.Client(must(w.client.DialTCP(ctx, netip.Addr{}, server443)), &tls.Config{InsecureSkipVerify: true})
		defer c.Close()
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if v := c.ConnectionState().Version; v != tls.VersionTLS13 {
			t.Errorf("TLS version %x", v)
		}
		w.wantElapsed("TCP and TLS", clock, 2)
		must(c.Write([]byte("x")))
		must(c.Read(make([]byte, 1)))
		w.wantElapsed("echo", clock, 3)
	})
}

func TestHTTP(t *testing.T) {
	run(t, nil, func(w *world) {
		l := must(w.server.ListenTCP(ctx, netip.AddrPortFrom(serverAddr, 80)))
		server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			io.Copy(rw, r.Body)
		})}
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(l) }()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return w.client.DialTCP(ctx, netip.Addr{}, netip.MustParseAddrPort(addr))
		}}
		clock := lab.NewClock(R)
		for i := range 2 {
			req := must(http.NewRequest("GET", "http://203.0.113.1/", nil))
			resp := must(transport.RoundTrip(req))
			resp.Body.Close()
			w.wantElapsed("response", clock, float64(2+i))
		}
		transport.CloseIdleConnections()
		server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func TestTraceAndClock(t *testing.T) {
	run(t, nil, func(w *world) {
		s := w.listenUDP()
		defer s.Close()
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer c.Close()
		clock := lab.NewClock(R)
		must(c.Write(append(make([]byte, 100), 1)))
		readFrom(s)
		events := w.recording.Events(nil)
		if len(events) != 2 {
			t.Fatalf("events %v", events)
		}
		sent, delivered := events[0], events[1]
		if sent.Fate != lab.Sent || sent.Where != "client" || sent.Src.Addr() != lab.Addrs("192.168.1.2")[0] || clock.At(sent.Time) != 0 {
			t.Errorf("sent: %v", sent)
		}
		if delivered.Fate != lab.Delivered || delivered.Where != "server" || delivered.ID != sent.ID || clock.At(delivered.Time) != 0.5 {
			t.Errorf("delivered: %v", delivered)
		}
		if delivered.Size != 101 || len(delivered.Payload) != 64 {
			t.Errorf("%d bytes, %d shown", delivered.Size, len(delivered.Payload))
		}
		if got, want := delivered.String(), "#1 udp 198.51.100.7:49152 > 203.0.113.1:443 101 bytes delivered at server"; got != want {
			t.Errorf("%s, want %s", got, want)
		}

		var seen int
		stop := w.Trace(func(e lab.Event) { seen++ })
		w.home.SetFirewall(lab.DropUDP)
		must(c.Write(nil))
		time.Sleep(R)
		stop()
		must(c.Write(nil))
		if seen != 2 || w.dropped(lab.ByFirewall) != 1 {
			t.Errorf("%d events traced until stop, want 2: %v", seen, w.recording.Events(nil))
		}
	})
}
