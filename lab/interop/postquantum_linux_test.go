//go:build netns

package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// strongSwan 5.9 knows nothing of ML-KEM. It takes the proposal without, and no
// IKE_INTERMEDIATE is sent.
func TestClassicalFallback(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		n := gatewayNetwork(t, netns.Config{})
		startCharon(t, n.Server, strongSwan{gateway: true})
		c := pskClient(t, n.Clients[0].Host)
		c.run()
		echoes(t, within(t, time.Minute), c.DialContext, echoAddress, 1<<10)
		if got := c.status().KeyExchange; got != "X25519" {
			t.Errorf("keys from %s", got)
		}
		if strings.Contains(c.Stderr.String(), "IKE_INTERMEDIATE") {
			t.Error("IKE_INTERMEDIATE was sent")
		}
	})
	t.Run("server", func(t *testing.T) {
		n := serverNetwork(t, netns.Config{})
		s := startServer(t, n, "")
		rw := startCharon(t, n.Clients[0].Host, strongSwan{})
		if out := rw.connect(); !strings.Contains(out, "initiate completed successfully") {
			t.Fatalf("no connection: %s", out)
		}
		ping(t, within(t, time.Minute), n.Clients[0].Host)
		if strings.Contains(s.Stderr.String(), "IKE_INTERMEDIATE") {
			t.Error("IKE_INTERMEDIATE was sent")
		}
	})
	t.Run("server that requires it", func(t *testing.T) {
		n := serverNetwork(t, netns.Config{})
		startServer(t, n, "", "--post-quantum", "require")
		rw := startCharon(t, n.Clients[0].Host, strongSwan{})
		if out := rw.connect(); !strings.Contains(out+rw.log(), "NO_PROPOSAL_CHOSEN") {
			t.Errorf("not refused: %s", out)
		}
	})
}
