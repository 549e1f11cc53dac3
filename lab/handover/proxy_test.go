//go:build virtualtime

package handover

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/proxy"
)

const proxyAt = "198.51.100.7:3128"

// serveProxy runs an HTTP proxy that lets through TLS to the server only.
func (w *world) serveProxy() {
	h := w.in.AddHost("proxy")
	h.Attach("eth0", w.in.Core(), lab.Addrs("198.51.100.7")...)
	ln, err := h.ListenTCP(w.ctx, netip.MustParseAddrPort(proxyAt))
	if err != nil {
		w.t.Fatal(err)
	}
	w.tasks.Go(func() {
		<-w.ctx.Done()
		ln.Close()
	})
	w.tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			w.tasks.Go(func() { w.connect(h, c) })
		}
	})
}

func (w *world) connect(h *lab.Host, c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	r, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	to, err := h.DialTCP(w.ctx, netip.Addr{}, netip.MustParseAddrPort(r.RequestURI))
	if err != nil {
		return
	}
	defer to.Close()
	fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
	if b, err := br.Peek(2); err != nil || string(b) != "\x16\x03" {
		return
	}
	w.tasks.Go(func() {
		io.Copy(c, to)
		c.Close()
	})
	io.Copy(to, br)
}

// TestMoveWhereOnlyAProxyPasses moves into a network that lets nothing out but
// TLS through its HTTP proxy: one round trip each for TCP, CONNECT, TLS and the
// upgrade that carries the registration.
func TestMoveWhereOnlyAProxyPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const r = 100 * time.Millisecond
		up, err := proxy.Parse("http://" + proxyAt)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, r, func(w *world) {
			w.wrap = func(t transports.Transport) transports.Transport {
				if t.Name() == transports.UDP {
					return t
				}
				return proxy.Wrap(t, up, proxy.Options{})
			}
		})
		defer w.close()
		w.serveProxy()
		m := w.join("laptop", 10)
		d := m.talk(r / 10)
		settle()
		w.cell.SetFirewall(lab.Chain(lab.OnlyTCP, lab.OnlyPort(3128)))
		moved := time.Now()
		m.host.Move("if0", w.cell)
		settle()
		p := m.client.Status().Path
		if p == nil || p.Encapsulation != "websocket" || p.Verdict != "intermediary" || p.Proxy != proxyAt || p.Remote != serverAt {
			t.Fatalf("path: %+v", p)
		}
		nearAt, farAt := d.since(moved, moved.Add(r/2))
		out, in := lab.Rounds(farAt.Sub(moved), r)-0.5, lab.Rounds(nearAt.Sub(moved), r)
		t.Logf("client data again at %.2f R, server data arrives at %.2f R", out, in)
		// Messages are a tenth of a round trip apart.
		if out > 4.1 || in > 4.1 {
			t.Error("want 4 and 4")
		}
		d.end()
	})
}
