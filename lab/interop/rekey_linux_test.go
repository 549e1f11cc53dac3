//go:build netns

package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// Lines for strongSwan that make it rekey both SAs every five seconds.
const (
	shortIKE   = "rekey_time = 5s\n    over_time = 60s\n    rand_time = 0s"
	shortChild = "rekey_time = 5s\n        life_time = 60s\n        rand_time = 0s"
)

// rekeyings counts the SAs that strongSwan made in place of others.
func (c *charon) rekeyings() (ike, child int) {
	for line := range strings.SplitSeq(c.log(), "\n") {
		if strings.Contains(line, "IKE_SA rw[") && strings.Contains(line, "rekeyed between") {
			ike++
		}
		if strings.Contains(line, "CHILD_SA net{") && strings.Contains(line, "established with SPIs") {
			child++
		}
	}
	return ike, child - 1
}

// rekeyed tells whether both SAs have been rekeyed.
func (c *charon) rekeyed() bool {
	ike, child := c.rekeyings()
	return ike >= 1 && child >= 1
}

const bulkSize = 200 * 1000 * 1000

// who shortens the lives of SAs.
var rekeyers = []struct {
	name             string
	strongSwan, ours bool
}{
	{"by strongSwan", true, false},
	{"by godwit", false, true},
	{"by both", true, true},
}

// 200 MB and more go each way through the client while both SAs are rekeyed,
// by either side and by both at once.
func TestClientRekeys(t *testing.T) {
	for _, tt := range rekeyers {
		t.Run(tt.name, func(t *testing.T) {
			n := gatewayNetwork(t, netns.Config{})
			ctx := within(t, 3*time.Minute)
			s := strongSwan{gateway: true}
			args := []string{"--ike-lifetime=-1s", "--child-lifetime=-1s"}
			if tt.strongSwan {
				s.connection, s.child = shortIKE, shortChild
			}
			if tt.ours {
				args = []string{"--ike-lifetime=5s", "--child-lifetime=5s"}
			}
			gw := startCharon(t, n.Server, s)
			c := pskClient(t, n.Clients[0].Host)
			c.run(args...)
			bulk(t, ctx, c.DialContext, bulkSize, gw.rekeyed)
			ike, child := gw.rekeyings()
			t.Logf("%d IKE SAs and %d Child SAs rekeyed", ike, child)
			if s := c.status(); s.State != "connected" {
				t.Errorf("status: %+v", s)
			}
		})
	}
}

// The same with strongSwan as the road warrior.
func TestServerRekeys(t *testing.T) {
	for _, tt := range rekeyers {
		t.Run(tt.name, func(t *testing.T) {
			n := serverNetwork(t, netns.Config{})
			ctx := within(t, 3*time.Minute)
			var s strongSwan
			args := []string{"--ike-lifetime=-1s", "--child-lifetime=-1s"}
			if tt.strongSwan {
				s.connection, s.child = shortIKE, shortChild
			}
			if tt.ours {
				args = []string{"--ike-lifetime=5s", "--child-lifetime=5s"}
			}
			startServer(t, n, "", args...)
			cl := startCharon(t, n.Clients[0].Host, s)
			if out := cl.connect(); !strings.Contains(out, "completed successfully") {
				t.Fatalf("not connected: %s", out)
			}
			bulk(t, ctx, n.Clients[0].DialContext, bulkSize, cl.rekeyed)
			ike, child := cl.rekeyings()
			t.Logf("%d IKE SAs and %d Child SAs rekeyed", ike, child)
		})
	}
}
