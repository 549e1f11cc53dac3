//go:build netns

package acceptance

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// dig asks a name server at the target: by a helper that speaks UDP ASSOCIATE, and
// by a port of the client's own, before a move and after it. None of it leaves
// the host but in the tunnel.
func TestDig(t *testing.T) {
	n := netns.New(t, netns.Config{Access: accessNetworks[:2]})
	answer := netip.MustParseAddr("192.0.2.80")
	at := netip.AddrPortFrom(netns.TargetIPv4, 53)
	serveDNS(t, n.Target.ListenPacket("udp", at.String()), "dug.test.", onlyIPv4(answer))
	d := &desk{n: n, ctx: within(t, 2*time.Minute), home: t.TempDir()}
	d.names = watchNames(t, n.Clients[0].Host)
	d.c = joinClient(t, startServer(t, n), n.Clients[0])
	const forward = `"udp 127.0.0.1:5353 9.9.9.9:53"`
	wantInGuide(t, forward)
	wantInGuide(t, "dig @127.0.0.1 -p 5353 example.org")
	changeFile(t, filepath.Join(d.c.dir, "client.toml"), "early_data = ", "forward = ["+strings.Replace(forward, "9.9.9.9:53", at.String(), 1)+"]\nearly_data = ")
	d.c.run(t)
	relayPort(t, n.Clients[0].Host, "127.0.0.1:5300", at)

	dig := func(when string) {
		t.Helper()
		for _, port := range []string{"5300", "5353"} {
			// Datagrams are lost in a move, and dig asks again.
			out := d.finish(t, d.start(nil, "dig", "+short", "+tries=10", "+timeout=2", "@127.0.0.1", "-p", port, "dug.test"))
			if out != answer.String()+"\n" {
				t.Errorf("%s, port %s: %q", when, port, out)
			}
		}
	}
	dig("before the move")
	d.move(t, "cell")
	dig("after the move")
	if k := d.names.count(); k > 0 {
		t.Errorf("%d packets asked a name server outside the tunnel", k)
	}
	// dig without either is what the count would have shown.
	p := d.start(nil, "dig", "+tries=1", "+timeout=1", "@"+netns.TargetIPv4.String(), "dug.test")
	if code, err := p.Wait(d.ctx); code == 0 || err != nil {
		t.Errorf("the target's name server can be reached without the tunnel: %s, %v", p.Stdout, err)
	}
	d.names.forgive()
}
