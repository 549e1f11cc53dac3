//go:build netns

package acceptance

import (
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A stream goes on while each encapsulation in turn is forced by the command, bare
// ESP too, and waits where the forced one does not pass.
func TestForceCommand(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{{Name: "wifi", Delay: lan}}})
	n.Target.Serve(echoAddress, echo)
	w := network{encapsulations: []string{"udp", "tcp", "websocket", "esp"}}
	s := w.startServer(t, n)
	c := joinClient(t, s, n.Clients[0])
	w.setEncapsulations(t, c.dir, "client.toml")
	c.run(t)
	ping := startPings(t, ctx, c)
	for _, name := range []string{"tcp", "esp", "websocket", "udp"} {
		out := must(t, c.host.Host, "client", "force", name, "--dir", c.dir)
		if !strings.HasPrefix(out, "all data goes by "+name+" now, from 10.1.0.10") {
			t.Errorf("the command says %q", out)
		}
		ping.more(t, ctx, "by "+name)
		if at := c.status(t); at.State != "connected" || at.Path.Encapsulation != name {
			t.Errorf("forced to %s: %s", name, at)
		}
	}
	n.Access[0].SetFirewall(netns.TCPOnly)
	c.await(t, ctx, "data that waits", func(s status) bool { return s.State == "moving" })
	before, _ := ping.count.get()
	o := command(t, ctx, c.host.Host, "client", "force", "udp", "--dir", c.dir)
	if o.code != 1 || !strings.Contains(o.stderr, "nothing answers by udp yet: streams wait") || !strings.Contains(o.stderr, "godwit client force auto") {
		t.Errorf("forced to what does not pass: exit code %d, %s", o.code, o.stderr)
	}
	// One may have been on its way.
	if now, _ := ping.count.get(); now > before+1 {
		t.Errorf("%d pings went where only TCP passes, and UDP is forced", now-before)
	}
	must(t, c.host.Host, "client", "force", "auto", "--dir", c.dir)
	ping.more(t, ctx, "let go of")
	if at := c.status(t); at.Path.Encapsulation != "tcp" {
		t.Errorf("let go of: %s", at)
	}
}
