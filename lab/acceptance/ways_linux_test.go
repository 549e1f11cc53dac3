//go:build netns

package acceptance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// twoWays has a provider behind the home's NAT swallow what goes up by UDP to one port
// and what comes down from the other, and all TCP to the server.
func twoWays(upDead, downDead int) string {
	return fmt.Sprintf(`
		table ip ways {
			chain forward {
				type filter hook forward priority filter; policy accept;
				ip daddr %[1]s udp dport %[2]d counter drop
				ip saddr %[1]s udp sport %[3]d counter drop
				ip daddr %[1]s tcp dport 443 counter drop
				ip saddr %[1]s tcp sport 443 counter drop
			}
		}`, netns.ServerIPv4, upDead, downDead)
}

// Nothing passes both ways any more while a client is connected: data of each direction
// has a port of its own, and status and doctor say so. When the network is good again,
// one port has both.
func TestTwoWays(t *testing.T) {
	t.Parallel()
	ctx := within(t, 4*time.Minute)
	w := network{server: []string{"--udp-port", "4500"}}
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{{Name: "access", NAT: netns.KeepPorts, Delay: lan}}})
	startSite(t, n, siteAddress).gate.set(each)
	s := w.startServer(t, n)
	c := joinClient(t, s, n.Clients[0])
	c.run(t)
	c.await(t, ctx, "connected", func(s status) bool { return s.State == "connected" })
	for _, tt := range []struct{ up, down int }{{443, 4500}, {4500, 443}} {
		names := map[int]string{443: "udp", 4500: "udp-4500"}
		up, down := names[tt.up], names[tt.down]
		n.Core.Rules(twoWays(tt.down, tt.up))
		c.wantBothWays(t, ctx, siteURL)
		t.Log(c.await(t, ctx, "up by "+up+", down by "+down, func(s status) bool {
			return s.State == "connected" && s.Path.Encapsulation == up && s.Path.Down.Encapsulation == down
		}))
		if out := must(t, c.host.Host, "status", "--dir", c.dir); !strings.Contains(out, "path back") || !strings.Contains(out, up+" / "+down) {
			t.Errorf("status does not tell of two ways:\n%s", out)
		}
		out := must(t, c.host.Host, "doctor", "--json", "--dir", c.dir)
		var found diagnosis
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatalf("doctor: %v: %s", err, out)
		}
		if found.Use != up || found.Down != down {
			t.Errorf("doctor: %s up, %s down, want %s and %s:\n%s", found.Use, found.Down, up, down, out)
		}
		n.Core.Rules("delete table ip ways")
	}
	c.await(t, ctx, "one way for both", func(s status) bool {
		return s.State == "connected" && s.Path.Encapsulation == "udp" && s.Path.Down.Encapsulation == ""
	})
	c.wantBothWays(t, ctx, siteURL)
}
