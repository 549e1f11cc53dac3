package transports

import (
	"net"
	"net/netip"
	"testing"
)

type otherAddr string

func (otherAddr) Network() string  { return "other" }
func (a otherAddr) String() string { return string(a) }

func TestAddrPort(t *testing.T) {
	for _, c := range []struct {
		in   net.Addr
		want string
	}{
		{&net.UDPAddr{IP: net.ParseIP("192.0.2.1"), Port: 4500}, "192.0.2.1:4500"}, // 16 bytes inside
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 443}, "[2001:db8::1]:443"},
		{otherAddr("[::ffff:192.0.2.1]:80"), "192.0.2.1:80"},
	} {
		if got := AddrPort(c.in); got != netip.MustParseAddrPort(c.want) {
			t.Errorf("%v gives %s, want %s", c.in, got, c.want)
		}
	}
	for _, a := range []net.Addr{nil, otherAddr("pipe"), &net.UnixAddr{Name: "x"}} {
		if got := AddrPort(a); got.IsValid() {
			t.Errorf("%v gives %s", a, got)
		}
	}
}

func TestNameOfPort(t *testing.T) {
	for n, port := range map[Name]uint16{"udp-4500": 4500, "udp-1": 1, "udp-65535": 65535} {
		if n.Port() != port || n.Base() != UDP || !n.Datagrams() || UDPOn(port) != n {
			t.Errorf("%s is port %d of %s", n, n.Port(), n.Base())
		}
	}
	for _, n := range []Name{"", "udp-", "udp-0", "udp-04500", "udp-+1", "udp-65536", "tcp-443", "udp-4500-1", TCP} {
		if n.Port() != 0 || n.Base() != n || n.Datagrams() {
			t.Errorf("%s is port %d of %s", n, n.Port(), n.Base())
		}
	}
	if !UDP.Datagrams() || !ESP.Datagrams() || UDP.Port() != 0 {
		t.Error("udp and esp carry datagrams")
	}
}
