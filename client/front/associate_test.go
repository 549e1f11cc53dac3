package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/things-go/go-socks5/statute"
)

// mirror is a far end that sends every datagram back.
func mirror(t *testing.T) func(context.Context) (net.Conn, error) {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, maxDatagram)
		for {
			n, from, err := pc.ReadFromUDP(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteToUDP(b[:n], from)
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return func(context.Context) (net.Conn, error) { return net.DialUDP("udp", nil, pc.LocalAddr().(*net.UDPAddr)) }
}

// associate asks for UDP and gives the TCP connection and the relay's port.
func associate(t *testing.T, proxy string, announced int) (net.Conn, *net.UDPAddr) {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte{5, 1, 0, 5, statute.CommandAssociate, 0, 1, 0, 0, 0, 0, byte(announced >> 8), byte(announced)}); err != nil {
		t.Fatal(err)
	}
	var b [12]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	if b[3] != statute.RepSuccess || b[5] != statute.ATYPIPv4 {
		t.Fatalf("reply %x", b)
	}
	return c, &net.UDPAddr{IP: net.IP(b[6:10]), Port: int(b[10])<<8 | int(b[11])}
}

func TestAssociate(t *testing.T) {
	proxy := New(Config{
		Dial:      func(context.Context, string, string) (net.Conn, error) { return nil, ErrRefused },
		Associate: mirror(t),
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- proxy.Serve(ln) }()
	defer func() {
		_ = proxy.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}()

	c, relay := associate(t, ln.Addr().String(), 0)
	app, err := net.DialUDP("udp", nil, relay)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	_ = app.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, maxDatagram)
	exchange := func(d []byte) []byte {
		t.Helper()
		if _, err := app.Write(d); err != nil {
			t.Fatal(err)
		}
		n, err := app.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
	for _, target := range []string{"192.0.2.1:53", "[2001:db8::1]:443", "dns.example:53"} {
		d, err := statute.NewDatagram(target, bytes.Repeat([]byte("q"), 1200))
		if err != nil {
			t.Fatal(err)
		}
		if got := exchange(d.Bytes()); !bytes.Equal(got, d.Bytes()) {
			t.Errorf("%s: came back as %x", target, got)
		}
	}

	// Who is not the application gets nothing through, and fragments do not pass:
	// the next answer is that of the next whole datagram.
	stranger, err := net.DialUDP("udp", nil, relay)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	good, _ := statute.NewDatagram("192.0.2.1:53", []byte("whole"))
	odd, _ := statute.NewDatagram("192.0.2.1:53", []byte("stranger"))
	if _, err := stranger.Write(odd.Bytes()); err != nil {
		t.Fatal(err)
	}
	fragment := good.Bytes()
	fragment[2] = 1
	if _, err := app.Write(fragment); err != nil {
		t.Fatal(err)
	}
	if got := exchange(good.Bytes()); !bytes.Equal(got, good.Bytes()) {
		t.Errorf("came back as %q", got)
	}

	// The end of the TCP connection is the end of the port.
	_ = c.Close()
	_ = app.SetDeadline(time.Time{})
	for {
		if _, err := app.Write(good.Bytes()); err != nil {
			break // refused: nobody is there any more
		}
		_ = app.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := app.Read(b); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() {
				break
			}
		}
	}
}
