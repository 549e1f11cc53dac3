package udp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
)

// reflector sends back what it gets, and then an ESP packet.
type reflector struct{ err chan error }

func (r reflector) Receive(c transports.Carrier, ps []transports.Packet) {
	if err := c.Send(ps); err != nil {
		r.err <- err
	}
	r.err <- c.Send([]transports.Packet{{Kind: transports.KindESP, Data: []byte{1, 2, 3, 4, 5}}})
}

func (r reflector) Closed(transports.Carrier, error) {}

// On port 500 a datagram is an IKE message from its first byte on, in both
// directions, and ESP does not leave.
func TestIKEOnly(t *testing.T) {
	r := reflector{make(chan error, 2)}
	l, err := Options{IKEOnly: true}.Listen(system.New(), netip.MustParseAddrPort("127.0.0.1:0"), r)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- l.Serve() }()
	defer func() { l.Close(); <-done }()
	c, err := new(net.Dialer).DialContext(context.Background(), "udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	message := bytes.Repeat([]byte{7}, 28)
	for _, b := range [][]byte{{0xff}, message} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 100)
	if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], message) {
		t.Errorf("got %x, %v", got[:n], err)
	}
	if err := <-r.err; !errors.Is(err, transports.ErrProtocol) {
		t.Errorf("ESP: %v", err)
	}
}
