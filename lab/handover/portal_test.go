//go:build virtualtime

package handover

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
)

const portalAt = "203.0.113.80:443"

// captive is a transport whose connections end at a portal while it is shut.
type captive struct {
	transports.Transport
	shut *atomic.Bool
}

func (c captive) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	o.Network = captiveNetwork{o.Network, c.shut}
	return c.Transport.Dial(ctx, o)
}

type captiveNetwork struct {
	transports.Network
	shut *atomic.Bool
}

func (n captiveNetwork) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	if n.shut.Load() {
		remote = netip.MustParseAddrPort(portalAt)
	}
	return n.Network.DialTCP(ctx, local, remote)
}

// TestCaptivePortal moves to a network that shows everybody its own certificate
// until somebody has agreed to its terms.
func TestCaptivePortal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 100 * time.Millisecond
		var shut atomic.Bool
		w := newWorld(t, r, func(w *world) {
			w.wrap = func(t transports.Transport) transports.Transport { return captive{t, &shut} }
		})
		defer w.close()
		portal := w.in.AddHost("portal")
		portal.Attach("eth0", w.in.Core(), netip.MustParseAddrPort(portalAt).Addr())
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"lab"}, NotAfter: time.Unix(1<<33, 0)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := portal.ListenTCP(t.Context(), netip.MustParseAddrPort(portalAt))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		w.tasks.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				w.tasks.Go(func() {
					defer c.Close()
					_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}).HandshakeContext(w.ctx)
				})
			}
		})

		m := w.join("mobile", 2)
		d := m.talk(r / 5)
		settle()
		shut.Store(true)
		w.cell.SetFirewall(lab.DropUDP)
		m.host.Move("if0", w.cell)
		time.Sleep(5 * time.Minute)
		s := m.client.Status()
		if s.State != "portal" || s.Portal == nil || !strings.HasPrefix(s.Portal.Evidence, "certificate with SHA-256") {
			t.Errorf("behind a portal: %s, %+v, %s", s.State, s.Portal, s.LastError)
		}
		shut.Store(false)
		w.cell.SetFirewall(nil)
		open := time.Now()
		time.Sleep(31 * time.Second) // the longest pause between attempts, and a bit
		settle()
		s = m.client.Status()
		if nearAt, farAt := d.since(open, open); nearAt.IsZero() || farAt.IsZero() || s.State != "connected" || s.Portal != nil {
			t.Errorf("the portal has let us in: %s, %+v; data near %v, far %v", s.State, s.Portal, nearAt, farAt)
		}
		if near, far := d.end(); near == 0 || far == 0 {
			t.Errorf("messages received: %d near, %d far", near, far)
		}
		ln.Close()
	})
}
