//go:build netns

package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// forwarded is an address that the core translates to the server's, as a router
// that forwards ports does.
const forwarded = "198.51.100.77"

// natNetwork is a network with NAT at the client's side, that changes ports, and
// if both is set at the server's too.
func natNetwork(t *testing.T, build func(*testing.T, netns.Config) *netns.Network, both bool) (n *netns.Network, server string) {
	t.Helper()
	n = build(t, netns.Config{Access: []netns.AccessConfig{{Name: "home", NAT: netns.RandomPorts}}})
	if !both {
		return n, netns.ServerIPv4.String()
	}
	n.Core.Rules(fmt.Sprintf(`
		table ip forwarded {
			chain prerouting {
				type nat hook prerouting priority dstnat; policy accept;
				ip daddr %s dnat to %s
			}
		}`, forwarded, netns.ServerIPv4))
	return n, forwarded
}

func TestNAT(t *testing.T) {
	for _, both := range []bool{false, true} {
		name := "at the client's side"
		if both {
			name = "on both sides"
		}
		t.Run("client "+name, func(t *testing.T) {
			n, server := natNetwork(t, gatewayNetwork, both)
			ctx := within(t, 2*time.Minute)
			gw := startCharon(t, n.Server, strongSwan{gateway: true})
			c := pskClient(t, n.Clients[0].Host)
			c.edit(netns.ServerIPv4.String(), server)
			c.run()
			echoes(t, ctx, c.DialContext, echoAddress, 1<<20)
			if sas := gw.swanctl("--list-sas"); !strings.Contains(sas, n.Access[0].Uplink.String()) {
				t.Errorf("the gateway does not see the NAT's address: %s", sas)
			}
		})
		t.Run("server "+name, func(t *testing.T) {
			n, server := natNetwork(t, serverNetwork, both)
			ctx := within(t, 2*time.Minute)
			startServer(t, n, "")
			cl := startCharon(t, n.Clients[0].Host, strongSwan{server: server})
			if out := cl.connect(); !strings.Contains(out, "completed successfully") {
				t.Fatalf("not connected: %s", out)
			}
			echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<20)
			ping(t, ctx, n.Clients[0].Host)
		})
	}
}

// A built-in client begins at port 500 and goes on at 4500.
func TestServerPort500(t *testing.T) {
	n, server := natNetwork(t, serverNetwork, false)
	ctx := within(t, 2*time.Minute)
	startServer(t, n, "")
	cl := startCharon(t, n.Clients[0].Host, strongSwan{server: server, port: 500})
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Fatalf("not connected: %s", out)
	}
	echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<20)
	if log := cl.log(); !strings.Contains(log, "[500] to "+server+"[500]") || !strings.Contains(log, "[4500] to "+server+"[4500]") {
		t.Error("it did not begin at port 500 and go on at 4500")
	}
}
