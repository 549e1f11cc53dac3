//go:build netns

package interop

import (
	"context"
	"encoding/binary"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// disorder is what no network does all the time.
var disorder = netns.Faults{Duplicate: 0.3, Late: 0.2, By: 10 * time.Millisecond}

// onceEach sends numbered datagrams through the tunnel to the target, which
// echoes them. A copy that the replay window let through would come back twice.
func onceEach(t *testing.T, ctx context.Context, h *netns.Host, n uint32) {
	t.Helper()
	c, err := h.DialContext(ctx, "udp", echoAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	go func() {
		for i := range n {
			_, _ = c.Write(binary.BigEndian.AppendUint32(nil, i))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	seen := make(map[uint32]int)
	b := make([]byte, 100)
	for len(seen) < int(n) {
		size, err := c.Read(b)
		if err != nil || size != 4 {
			t.Fatalf("after %d of %d: %d bytes, %v", len(seen), n, size, err)
		}
		seen[binary.BigEndian.Uint32(b)]++
	}
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // for copies of the last
	for {
		if _, err := c.Read(b); err != nil {
			break
		}
		seen[binary.BigEndian.Uint32(b)]++
	}
	for i, times := range seen {
		if times != 1 {
			t.Errorf("datagram %d came %d times", i, times)
		}
	}
}

// countKeepalives has the router of the first access network count what clients
// send of RFC 3948's NAT-keepalives: one byte of UDP.
func countKeepalives(_ *testing.T, n *netns.Network) {
	n.Access[0].Router.Rules(`
		table inet keepalives {
			chain out {
				type filter hook forward priority filter; policy accept;
				oifname "up" udp dport 4500 udp length 9 counter
			}
		}`)
}

var counted = regexp.MustCompile(`counter packets (\d+)`)

// keepalives is how many have been counted.
func keepalives(t *testing.T, router *netns.Host) int {
	t.Helper()
	out, err := router.Command("nft", "list", "table", "inet", "keepalives").CombinedOutput()
	m := counted.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
