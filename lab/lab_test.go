package lab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// R is one round trip between the client and the server of a world.
const R = 50 * ms

var (
	ctx        = context.Background()
	serverAddr = netip.MustParseAddr("203.0.113.1")
	server443  = netip.AddrPortFrom(serverAddr, 443)
)

// A world has a client behind "home" (20 ms, 192.168.1.0/24, and IPv6) and a
// server in "dc" (5 ms), so that R is 50 ms.
type world struct {
	*lab.Internet
	t              *testing.T
	home, dc       *lab.Network
	client, server *lab.Host
	recording      *lab.Recording
}

// newWorld describes it; change may change the home network first.
func newWorld(t *testing.T, change func(*lab.NetworkConfig)) *world {
	w := &world{Internet: lab.New(1), t: t}
	c := lab.NetworkConfig{
		Prefixes: lab.Prefixes("192.168.1.0/24", "2001:db8:1::/64"),
		Link:     lab.Link{Delay: 20 * ms},
		NAT:      &lab.NAT{Outside: lab.Addrs("198.51.100.7")},
	}
	if change != nil {
		change(&c)
	}
	w.home = w.AddNetwork("home", c)
	w.dc = w.AddNetwork("dc", lab.NetworkConfig{Link: lab.Link{Delay: 5 * ms}})
	w.client, w.server = w.AddHost("client"), w.AddHost("server")
	w.client.Attach("wlan0", w.home)
	w.server.Attach("eth0", w.dc, serverAddr, netip.MustParseAddr("2001:db8:2::1"))
	w.recording = w.Record()
	return w
}

// run runs f in a bubble with a world.
func run(t *testing.T, change func(*lab.NetworkConfig), f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		defer w.Close()
		f(w)
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (w *world) listenUDP() transports.PacketConn {
	return must(w.server.ListenUDP(ctx, netip.AddrPortFrom(netip.Addr{}, 443)))
}

// pair gives both ends of a TCP connection.
func (w *world) pair() (client, server net.Conn) {
	l := must(w.server.ListenTCP(ctx, netip.AddrPortFrom(netip.Addr{}, 443)))
	defer l.Close()
	client = must(w.client.DialTCP(ctx, netip.Addr{}, server443))
	return client, must(l.Accept())
}

// dropped counts what was dropped for a reason.
func (w *world) dropped(reason string) int {
	return len(w.recording.Events(func(e lab.Event) bool { return e.Fate == lab.Dropped && e.Reason == reason }))
}

func (w *world) wantElapsed(what string, c lab.Clock, rounds float64) {
	w.t.Helper()
	if got := c.Rounds(); got != rounds {
		w.t.Errorf("%s after %v round trips, want %v", what, got, rounds)
	}
}

func (w *world) wantErr(what string, err, want error) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func read(c io.Reader) (string, error) {
	b := make([]byte, 2000)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func TestUDPTakesHalfARoundTripEachWay(t *testing.T) {
	run(t, nil, func(w *world) {
		s := w.listenUDP()
		defer s.Close()
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer c.Close()
		clock := lab.NewClock(R)
		must(c.Write([]byte("ping")))
		b := make([]byte, 10)
		n, from, err := s.ReadFromUDPAddrPort(b)
		if string(b[:n]) != "ping" || err != nil {
			t.Fatalf("read %q, %v", b[:n], err)
		}
		w.wantElapsed("the ping comes", clock, 0.5)
		if want := netip.MustParseAddrPort("198.51.100.7:49152"); from != want {
			t.Errorf("from %v, want %v", from, want)
		}
		if got := c.LocalAddr().String(); got != "192.168.1.2:49152" {
			t.Errorf("local address %v", got)
		}
		must(s.WriteToUDPAddrPort([]byte("pong"), from))
		if got, err := read(c); got != "pong" || err != nil {
			t.Fatalf("read %q, %v", got, err)
		}
		w.wantElapsed("the pong comes", clock, 1)
	})
}

func TestUDPErrors(t *testing.T) {
	run(t, nil, func(w *world) {
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		clock := lab.NewClock(R)
		must(c.Write([]byte("anybody?")))
		_, err := read(c)
		w.wantErr("nobody listens", err, syscall.ECONNREFUSED)
		w.wantElapsed("refused", clock, 1)

		if err := c.SetReadDeadline(time.Now().Add(3 * R)); err != nil {
			t.Fatal(err)
		}
		_, err = read(c)
		w.wantErr("an error is given once", err, os.ErrDeadlineExceeded)
		w.wantElapsed("deadline", clock, 4)

		_, err = c.Write(make([]byte, 1473))
		w.wantErr("above the MTU of the own link", err, syscall.EMSGSIZE)
		_, err = c.Write(make([]byte, 1472))
		w.wantErr("up to the MTU", err, nil)

		_, err = w.client.ListenUDP(ctx, netip.MustParseAddrPort("192.0.2.1:1"))
		w.wantErr("foreign address", err, syscall.EADDRNOTAVAIL)
		s := w.listenUDP()
		_, err = w.server.ListenUDP(ctx, netip.AddrPortFrom(serverAddr, 443))
		w.wantErr("port in use", err, syscall.EADDRINUSE)
		s.Close()

		go func() {
			time.Sleep(2 * R)
			c.Close()
		}()
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		_, err = read(c) // the refusal of the 1,472 bytes
		w.wantErr("refused", err, syscall.ECONNREFUSED)
		_, err = read(c)
		w.wantErr("closed under a reader", err, net.ErrClosed)
		_, err = c.Write(nil)
		w.wantErr("closed", err, net.ErrClosed)
	})
}

func TestLargeDatagramsVanishOnALaterLink(t *testing.T) {
	run(t, nil, func(w *world) {
		s := w.listenUDP()
		defer s.Close()
		w.dc.SetLink(lab.Link{MTU: 1280})
		c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
		defer c.Close()
		must(c.Write(make([]byte, 1253)))
		must(c.Write(make([]byte, 1252)))
		if got, _ := readFrom(s); len(got) != 1252 {
			t.Errorf("%d bytes arrived, want the 1,252 only", len(got))
		}
		if n := w.dropped(lab.ByMTU); n != 1 {
			t.Errorf("%d dropped as too big, want 1", n)
		}
	})
}

func readFrom(s transports.PacketConn) (string, netip.AddrPort) {
	b := make([]byte, 2000)
	n, from, err := s.ReadFromUDPAddrPort(b)
	if err != nil {
		panic(err)
	}
	return string(b[:n]), from
}

func TestRate(t *testing.T) {
	rate := func(c *lab.NetworkConfig) { c.Link.Rate = 1_000_000 }
	t.Run("TCP", func(t *testing.T) {
		run(t, rate, func(w *world) {
			c, s := w.pair()
			defer s.Close()
			start := time.Now()
			go func() {
				c.Write(make([]byte, 1_000_000))
				c.Close()
			}()
			if got := must(io.ReadAll(s)); len(got) != 1_000_000 {
				t.Errorf("%d bytes", len(got))
			}
			if got, want := time.Since(start), time.Second+R/2; got != want {
				t.Errorf("took %v, want %v", got, want)
			}
		})
	})
	t.Run("UDP has a bounded queue", func(t *testing.T) {
		run(t, func(c *lab.NetworkConfig) { rate(c); c.Link.Queue = 10_000 }, func(w *world) {
			s := w.listenUDP()
			defer s.Close()
			c := must(w.client.DialUDP(ctx, netip.Addr{}, server443))
			defer c.Close()
			clock := lab.NewClock(ms)
			for range 20 {
				must(c.Write(make([]byte, 1000)))
			}
			for range 10 {
				readFrom(s)
			}
			w.wantElapsed("the queue is through", clock, 10+25)
			if n := w.dropped(lab.ByQueue); n != 10 {
				t.Errorf("%d dropped, want 10", n)
			}
		})
	})
}

func TestListenersAndFaces(t *testing.T) {
	run(t, nil, func(w *world) {
		l := must(w.server.ListenTCP(ctx, netip.MustParseAddrPort("0.0.0.0:0")))
		defer l.Close()
		at := netip.AddrPortFrom(serverAddr, l.Addr().(*net.TCPAddr).AddrPort().Port())
		_, err := w.server.ListenTCP(ctx, at)
		w.wantErr("port in use", err, syscall.EADDRINUSE)
		_, err = w.server.ListenTCP(ctx, netip.MustParseAddrPort("192.0.2.1:80"))
		w.wantErr("foreign address", err, syscall.EADDRNOTAVAIL)
		_, err = w.client.DialTCP(ctx, lab.Addrs("192.0.2.1")[0], at)
		w.wantErr("from a foreign address", err, syscall.EADDRNOTAVAIL)
		_, err = w.client.DialTCP(ctx, lab.Addrs("2001:db8:1::2")[0], at)
		w.wantErr("from the other IP version", err, syscall.EAFNOSUPPORT)
		_, err = w.client.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(netip.MustParseAddr("2001:db8:2::1"), at.Port()))
		w.wantErr("an IPv4 listener", err, syscall.ECONNREFUSED)

		l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(R))
		_, err = l.Accept()
		w.wantErr("accept", err, os.ErrDeadlineExceeded)

		u := must(w.server.ListenUDP(ctx, netip.AddrPort{})).(net.PacketConn)
		defer u.Close()
		c := must(w.client.ListenUDP(ctx, netip.AddrPort{})).(net.PacketConn)
		defer c.Close()
		_, err = c.WriteTo([]byte("x"), &net.TCPAddr{})
		w.wantErr("to a TCP address", err, syscall.EINVAL)
		_, err = c.WriteTo(make([]byte, 70000), &net.UDPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 1})
		w.wantErr("above 65,507", err, syscall.EMSGSIZE)
		must(c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(203, 0, 113, 1), Port: u.LocalAddr().(*net.UDPAddr).Port}))
		_, from, err := u.ReadFrom(make([]byte, 10))
		if err != nil || from.String() != "198.51.100.7:49153" { // the refused dial took the port before
			t.Errorf("from %v, %v", from, err)
		}
		c.SetDeadline(time.Now())
		_, err = c.WriteTo([]byte("x"), from)
		w.wantErr("after the deadline", err, os.ErrDeadlineExceeded)
	})
}

// The end of the laboratory is the end of whoever waits in it; run's bubble
// would report a goroutine that still waits.
func TestCloseFreesEverybody(t *testing.T) {
	run(t, nil, func(w *world) {
		c, s := w.pair()
		u := w.listenUDP()
		l := must(w.client.ListenTCP(ctx, netip.AddrPort{}))
		errs := make(chan error, 5)
		go func() { _, err := read(c); errs <- err }()
		go func() { _, err := s.Write(make([]byte, 1<<20)); errs <- err }()
		go func() { _, _, err := u.ReadFromUDPAddrPort(nil); errs <- err }()
		go func() { _, err := l.Accept(); errs <- err }()
		go func() {
			w.home.SetFirewall(lab.DropAll)
			_, err := w.client.DialTCP(ctx, netip.Addr{}, server443)
			errs <- err
		}()
		synctest.Wait()
		w.Close()
		for range cap(errs) {
			w.wantErr("after Close", <-errs, net.ErrClosed)
		}
		_, err := w.client.DialUDP(ctx, netip.Addr{}, server443)
		w.wantErr("dial after Close", err, net.ErrClosed)
	})
}
