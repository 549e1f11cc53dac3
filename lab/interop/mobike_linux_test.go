//go:build netns

package interop

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// twoNetworks has NAT of different kinds in front of both.
var twoNetworks = []netns.AccessConfig{
	{Name: "wifi", NAT: netns.KeepPorts, Delay: 10 * time.Millisecond},
	{Name: "cell", NAT: netns.RandomPorts, Delay: 10 * time.Millisecond},
}

// The client moves in mid-transfer against a gateway that knows MOBIKE and
// nothing of registrations, there and back.
func TestClientMoves(t *testing.T) {
	n := gatewayNetwork(t, netns.Config{Access: twoNetworks})
	ctx := within(t, 2*time.Minute)
	gw := startCharon(t, n.Server, strongSwan{gateway: true})
	c := pskClient(t, n.Clients[0].Host)
	c.run()
	moves := movesDuring(t, ctx, n.Clients[0], c.DialContext, func(network string) bool {
		s := c.status()
		return s.State == "connected" && strings.HasPrefix(s.Path.Local, n.Clients[0].Addresses(network)[0].String()+":")
	})
	if got := strings.Count(gw.log(), "N(UPD_SA_ADDR)"); got < moves {
		t.Errorf("the gateway saw %d updates of addresses in %d moves", got, moves)
	}
	if sas := gw.swanctl("--list-sas"); !strings.Contains(sas, n.Access[0].Uplink.String()) {
		t.Errorf("the gateway does not have the client where it is: %s", sas)
	}
	if ikes := strings.Count(gw.log(), "is initiating an IKE_SA"); ikes != 1 {
		t.Errorf("%d IKE SAs were made", ikes)
	}
}

// The same with strongSwan as the road warrior.
func TestServerMoves(t *testing.T) {
	n := serverNetwork(t, netns.Config{Access: twoNetworks})
	ctx := within(t, 2*time.Minute)
	s := startServer(t, n, "")
	cl := startCharon(t, n.Clients[0].Host, strongSwan{})
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Fatalf("not connected: %s", out)
	}
	moves := movesDuring(t, ctx, n.Clients[0], n.Clients[0].DialContext, func(network string) bool {
		return strings.Contains(cl.swanctl("--list-sas"), n.Clients[0].Addresses(network)[0].String())
	})
	if got := strings.Count(s.Stderr.String(), "client moved"); got < moves {
		t.Errorf("the server noticed %d of %d moves", got, moves)
	}
	if ikes := strings.Count(cl.log(), "initiating IKE_SA"); ikes != 1 {
		t.Errorf("%d IKE SAs were made", ikes)
	}
}

// movesDuring moves a client to the second network and back while a connection
// carries data, which has to arrive whole; settled tells when a move is done.
func movesDuring(t *testing.T, ctx context.Context, h *netns.Client, dial dialFunc, settled func(network string) bool) (moves int) {
	t.Helper()
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		bulk(t, ctx, dial, 10*1000*1000, func() bool {
			select {
			case <-stop:
				return true
			default:
				return false
			}
		})
	}()
	defer func() { close(stop); <-done }()
	time.Sleep(500 * time.Millisecond)
	for _, network := range []string{"cell", "wifi"} {
		h.Move(network, netns.Hard)
		moves++
		for !settled(network) {
			select {
			case <-ctx.Done():
				t.Errorf("the move to %s does not end", network)
				return moves
			case <-time.After(50 * time.Millisecond):
			}
		}
		// Some data on the new path before the next move.
		time.Sleep(time.Second)
	}
	return moves
}
