package system

import (
	"net/netip"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestUnspecified: either unspecified address takes clients of both families.
func TestUnspecified(t *testing.T) {
	controls := 0
	n := New(WithControl(func(_, _ string, c syscall.RawConn) error {
		controls++
		return nil
	}))
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		ln, err := n.ListenTCP(t.Context(), netip.MustParseAddrPort(listen))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		pc, err := n.ListenUDP(t.Context(), netip.MustParseAddrPort(listen))
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		for _, host := range []string{"127.0.0.1", "::1"} {
			addr := netip.MustParseAddr(host)
			conn, err := n.DialTCP(t.Context(), addr, netip.AddrPortFrom(addr, transports.AddrPort(ln.Addr()).Port()))
			if err != nil {
				t.Fatalf("listening on %s: %v", listen, err)
			}
			defer conn.Close()
			if a := transports.AddrPort(conn.LocalAddr()); a.Addr() != addr {
				t.Errorf("bound to %s, sends from %s", host, a)
			}
			u, err := n.DialUDP(t.Context(), netip.Addr{}, netip.AddrPortFrom(addr, transports.AddrPort(pc.LocalAddr()).Port()))
			if err != nil {
				t.Fatalf("listening on %s: %v", listen, err)
			}
			defer u.Close()
			if a := transports.AddrPort(u.LocalAddr()); a.Addr() != addr {
				t.Errorf("sends from %s to %s", a, host)
			}
			u.Write([]byte("x"))
			if _, from, err := pc.ReadFromUDPAddrPort(make([]byte, 1)); err != nil || transports.Unmap(from).Addr() != addr {
				t.Errorf("datagram from %s: %v", from, err)
			}
		}
	}
	if controls < 12 {
		t.Errorf("Control saw %d sockets, want 12", controls)
	}
}

func TestErrors(t *testing.T) {
	n := New()
	ln, err := n.ListenTCP(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := transports.AddrPort(ln.Addr())
	if _, err := n.ListenTCP(t.Context(), addr); err == nil {
		t.Error("a port was taken twice")
	}
	ln.Close()
	if _, err := n.DialTCP(t.Context(), netip.Addr{}, addr); err == nil {
		t.Error("connected to a closed port")
	}
	if _, err := New(WithControl(func(string, string, syscall.RawConn) error { return syscall.EPERM })).
		DialUDP(t.Context(), netip.Addr{}, addr); err == nil {
		t.Error("a failed Control did not keep the socket from being made")
	}
}
