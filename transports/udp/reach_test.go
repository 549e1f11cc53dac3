package udp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
)

// heardBy gives the carriers by which packets come.
type heardBy chan transports.Carrier

func (h heardBy) Receive(c transports.Carrier, _ []transports.Packet) { h <- c }
func (h heardBy) Closed(transports.Carrier, error)                    {}

// TestReach sends to where nothing has come from. There is one carrier to an address,
// and it is the one by which is heard what comes from there.
func TestReach(t *testing.T) {
	heard := make(heardBy, 1)
	l, err := Listen(system.New(), netip.MustParseAddrPort("127.0.0.1:0"), heard)
	if err != nil {
		t.Fatal(err)
	}
	defer serve(l)()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	local, remote := l.Addr().Addr(), transports.AddrPort(conn.LocalAddr())
	c, ok := l.Reach(local, remote)
	if !ok {
		t.Fatal("no carrier")
	}
	if err := c.Send([]transports.Packet{{Kind: transports.KindESP, Data: []byte("12345678")}}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, from, err := conn.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != "12345678" || from != l.Addr() {
		t.Fatalf("%q from %v, %v", b[:n], from, err)
	}
	if _, ok := l.Reach(local, remote); ok {
		t.Error("a second carrier to the same address")
	}
	if _, err := conn.WriteToUDPAddrPort([]byte("12345678"), l.Addr()); err != nil {
		t.Fatal(err)
	}
	if by := <-heard; by != c {
		t.Errorf("heard by another carrier: %v", by.Describe())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Reach(local, remote); !ok {
		t.Error("no carrier after the first was closed")
	}
}
