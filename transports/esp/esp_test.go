package esp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rawPort stands for protocol 50 on networks that have UDP only.
const rawPort = 50

// inUDP has the suite's networks pass for raw ones. The real ones, which ask for
// rights that a test may not have, are tested in network namespaces.
type inUDP struct{ transports.Network }

func (n inUDP) DialESP(ctx context.Context, local, remote netip.Addr) (net.Conn, error) {
	return n.DialUDP(ctx, local, netip.AddrPortFrom(remote, rawPort))
}

func (n inUDP) ListenESP(ctx context.Context, local netip.Addr) (transports.PacketConn, error) {
	return n.ListenUDP(ctx, netip.AddrPortFrom(local, rawPort))
}

// onUDP dials over such a network.
type onUDP struct{ transports.Transport }

func (t onUDP) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	o.Network = inUDP{o.Network}
	return t.Transport.Dial(ctx, o)
}

func TestSuite(t *testing.T) {
	transporttest.Run(t, transporttest.Suite{
		Transport: onUDP{New()},
		Serve: func(t testing.TB, n transports.Network, local netip.AddrPort, h transports.Handler) (netip.AddrPort, func()) {
			l, err := Listen(inUDP{n}, local.Addr(), h)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = l.Serve()
			}()
			return netip.AddrPortFrom(local.Addr(), rawPort), func() { l.Close(); <-done }
		},
	})
}

// refusing is a network whose raw sockets need a right.
type refusing struct{ transports.Network }

func (refusing) DialESP(context.Context, netip.Addr, netip.Addr) (net.Conn, error) {
	return nil, os.NewSyscallError("socket", os.ErrPermission)
}

func (refusing) ListenESP(context.Context, netip.Addr) (transports.PacketConn, error) {
	return nil, os.NewSyscallError("socket", os.ErrPermission)
}

func TestErrors(t *testing.T) {
	memory := transporttest.NewMemory()
	remote := netip.MustParseAddrPort("192.0.2.1:443")
	for _, tt := range []struct {
		network transports.Network
		want    error
	}{
		{memory, ErrUnsupported},
		{refusing{memory}, ErrRight},
	} {
		_, err := New().Dial(t.Context(), transports.Opening{Network: tt.network, Remote: remote})
		if !errors.Is(err, tt.want) {
			t.Errorf("Dial: %v, want %v", err, tt.want)
		}
		if _, err := Listen(tt.network, remote.Addr(), nil); !errors.Is(err, tt.want) {
			t.Errorf("Listen: %v, want %v", err, tt.want)
		}
	}
}
