package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
)

var address = netip.MustParseAddrPort("192.0.2.1:4500")

// tapped is a network that notes what each Write of a dialled connection holds.
type tapped struct {
	transports.Network
	mu     sync.Mutex
	writes []string
}

type tappedConn struct {
	net.Conn
	tap *tapped
}

func (t *tapped) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := t.Network.DialTCP(ctx, local, remote)
	return tappedConn{c, t}, err
}

func (c tappedConn) Write(b []byte) (int, error) {
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.writes = append(c.tap.writes, string(b))
	return c.Conn.Write(b)
}

// TestFirstFlight: prefix and first packets are one write, and the bytes are
// those of RFC 9329, Section 3.
func TestFirstFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := transporttest.NewRecorder()
		n := &tapped{Network: transporttest.NewMemory()}
		_, stop := suite.Serve(t, n, address, server)
		defer stop()
		c, err := New().Dial(t.Context(), transports.Opening{
			Network: n, Remote: address, Handler: transporttest.NewRecorder(),
			First: func(transports.Description) []transports.Packet {
				return []transports.Packet{
					{Kind: transports.KindIKE, Data: []byte("ike")},
					{Kind: transports.KindESP, Data: []byte("esp")},
					{Kind: transports.KindESP, Data: make([]byte, transports.MaxPacket+1)},
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		synctest.Wait()
		if want := "IKETCP\x00\x09\x00\x00\x00\x00ike\x00\x05esp"; len(n.writes) != 1 || n.writes[0] != want {
			t.Errorf("%d writes: %q", len(n.writes), n.writes)
		}
		c.Send([]transports.Packet{{Kind: transports.KindESP, Data: []byte("x")}, {Kind: transports.KindESP, Data: []byte("y")}})
		synctest.Wait()
		if len(n.writes) != 2 || n.writes[1] != "\x00\x03x\x00\x03y" {
			t.Errorf("a batch became %q", n.writes[1:])
		}
	})
}

// raw plays a client by hand.
func raw(t *testing.T, play func(conn net.Conn, server *transporttest.Recorder)) {
	synctest.Test(t, func(t *testing.T) {
		server := transporttest.NewRecorder()
		n := transporttest.NewMemory()
		_, stop := suite.Serve(t, n, address, server)
		defer stop()
		conn, err := n.DialTCP(t.Context(), netip.Addr{}, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		play(conn, server)
	})
}

// closed is true when the server has closed conn, without a byte.
func closed(conn net.Conn) bool {
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestPrefixMissing(t *testing.T) {
	raw(t, func(conn net.Conn, server *transporttest.Recorder) {
		conn.Write([]byte("IKETCQ\x00\x05esp"))
		if !closed(conn) {
			t.Error("a wrong prefix was taken")
		}
	})
}

func TestPrefixLate(t *testing.T) {
	raw(t, func(conn net.Conn, server *transporttest.Recorder) {
		start := time.Now()
		conn.Write([]byte("IKETC"))
		if !closed(conn) || time.Since(start) != prefixTimeout {
			t.Errorf("an incomplete prefix was waited for %v", time.Since(start))
		}
	})
}

func TestPrefixInPieces(t *testing.T) {
	raw(t, func(conn net.Conn, server *transporttest.Recorder) {
		for _, b := range []byte("IKETCP\x00\x05esp") {
			conn.Write([]byte{b})
			time.Sleep(time.Second)
		}
		if ps := server.Packets(1); string(ps[0].Data) != "esp" {
			t.Errorf("got %v", ps)
		}
		// The prefix's deadline is not the carrier's.
		time.Sleep(prefixTimeout)
		conn.Write([]byte("\x00\x03\xff\x00\x05ESP"))
		if ps := server.Packets(2); string(ps[1].Data) != "ESP" {
			t.Errorf("got %v", ps)
		}
	})
}

// TestNothingKept: an ended carrier leaves nothing in its listener.
func TestNothingKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, n := transporttest.NewRecorder(), transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		l := NewListener(ln, server)
		done := make(chan error)
		go func() { done <- l.Serve() }()
		conn, err := n.DialTCP(t.Context(), netip.Addr{}, address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("IKETCP\x00\x05esp"))
		server.Packets(1)
		conn.Close()
		synctest.Wait()
		l.mu.Lock()
		if len(l.live) != 0 {
			t.Errorf("%d left", len(l.live))
		}
		l.mu.Unlock()
		l.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestBadLength(t *testing.T) {
	raw(t, func(conn net.Conn, server *transporttest.Recorder) {
		conn.Write([]byte("IKETCP\x00\x05esp\x00\x01never"))
		if !closed(conn) {
			t.Error("the stream went on")
		}
		if ends := server.Ends(server.Carrier()); len(ends) != 1 || !errors.Is(ends[0], transports.ErrProtocol) {
			t.Errorf("carrier ended with %v", ends)
		}
		if ps := server.Packets(1); len(ps) != 1 {
			t.Errorf("got %v", ps)
		}
	})
}
