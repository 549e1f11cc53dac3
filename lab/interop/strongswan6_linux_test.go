//go:build netns && strongswan6

package interop

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// strongSwan6 has ML-KEM-768 and offers nothing else. The program that runs its
// charon is what strongswan6.sh makes; the environment names it.
func strongSwan6(t *testing.T, s strongSwan) strongSwan {
	t.Helper()
	runner := os.Getenv("GODWIT_STRONGSWAN6")
	if runner == "" {
		t.Fatal("GODWIT_STRONGSWAN6 names no program: run make interop6")
	}
	s.runner = []string{runner}
	s.ike = "aes256gcm16-prfsha384-x25519-ke1_mlkem768"
	s.esp = "aes256gcm16-x25519-ke1_mlkem768-noesn"
	return s
}

const hybridKeys = "X25519+ML-KEM-768"

// The client, and then strongSwan as the gateway, rekeys both SAs.
func TestPostQuantumClient(t *testing.T) {
	n := gatewayNetwork(t, netns.Config{})
	ctx := within(t, 2*time.Minute)
	gw := startCharon(t, n.Server, strongSwan6(t, strongSwan{gateway: true}))
	c := pskClient(t, n.Clients[0].Host)
	c.run("--ike-lifetime=3s", "--child-lifetime=2s")
	if got := c.status().KeyExchange; got != hybridKeys {
		t.Fatalf("keys from %s", got)
	}
	for strings.Count(gw.log(), "IKE_FOLLOWUP_KE") < 8 {
		echoes(t, ctx, c.DialContext, echoAddress, 1<<10)
		time.Sleep(50 * time.Millisecond)
	}
	for range 2 {
		for _, what := range []string{"--child=net", "--ike=rw"} {
			if out := gw.swanctl("--rekey", what); !strings.Contains(out, "success") {
				t.Errorf("rekey %s: %s", what, out)
			}
			time.Sleep(time.Second)
			echoes(t, ctx, c.DialContext, echoAddress, 1<<10)
		}
	}
	if got := c.status().KeyExchange; got != hybridKeys {
		t.Errorf("after rekeying keys from %s", got)
	}
}

func TestPostQuantumServer(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	ctx := within(t, 2*time.Minute)
	startServer(t, n, "", "--post-quantum", "require", "--ike-lifetime=3s", "--child-lifetime=2s")
	rw := startCharon(t, n.Clients[0].Host, strongSwan6(t, strongSwan{}))
	if out := rw.connect(); !strings.Contains(out, "initiate completed successfully") {
		t.Fatalf("no connection: %s", out)
	}
	for strings.Count(rw.log(), "IKE_FOLLOWUP_KE") < 8 {
		ping(t, ctx, n.Clients[0].Host)
	}
	for range 2 {
		for _, what := range []string{"--child=net", "--ike=rw"} {
			if out := rw.swanctl("--rekey", what); !strings.Contains(out, "success") {
				t.Errorf("rekey %s: %s", what, out)
			}
			time.Sleep(time.Second)
			ping(t, ctx, n.Clients[0].Host)
		}
	}
}
