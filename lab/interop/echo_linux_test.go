//go:build netns

package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// echoSize fills all buffers on the way several times.
const echoSize = 32 << 20

// One connection that is full in both directions: the target echoes, and reads
// no more while what it writes is not taken. Whoever waits for room then must
// still hear what the other has received.
func TestClientEcho(t *testing.T) {
	n := gatewayNetwork(t, netns.Config{})
	startCharon(t, n.Server, strongSwan{gateway: true})
	c := pskClient(t, n.Clients[0].Host)
	c.run()
	echoes(t, within(t, 2*time.Minute), c.DialContext, echoAddress, echoSize)
}

// The same through the server's egress for packets.
func TestServerEcho(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	startServer(t, n, "")
	cl := startCharon(t, n.Clients[0].Host, strongSwan{})
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Fatalf("not connected: %s", out)
	}
	echoes(t, within(t, 2*time.Minute), n.Clients[0].DialContext, echoAddress, echoSize)
}
