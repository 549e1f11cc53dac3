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
