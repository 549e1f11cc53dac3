//go:build netns

package acceptance

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A whole machine moves to another NAT, to where only TCP passes, to where only
// TLS does, and back: one download, one connection to and fro, datagrams and names
// live through it, and nothing leaves by any network but carriers. The filter for
// reverse paths is strict.
func TestTunMachineMoves(t *testing.T) {
	ctx := within(t, 5*time.Minute)
	var access []netns.AccessConfig
	for _, a := range accessNetworks {
		a.Families = netns.DualStack
		access = append(access, a)
	}
	w := newMachineWorld(t, access...)
	host := w.Clients[0]
	for _, a := range access {
		host.Sysctl("net.ipv4.conf."+a.Name+".rp_filter", "1")
	}
	before := w.routing(t, ctx)
	w.client.run(t, "--tun")
	var leaks []*leakWatch
	for _, a := range access {
		leaks = append(leaks, w.watchLeaks(t, a.Name))
	}
	const step, ahead = 10 * mega, 8 * mega
	const size = 5 * step
	w.site.gate.set(step + ahead)
	d := w.download(t, ctx, fmt.Sprintf("http://site.test:8000/stream?size=%d", size))
	conn, err := host.Dial("tcp", net.JoinHostPort(netns.TargetIPv6.String(), "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	ask := func(when string) {
		t.Helper()
		line := []byte("where am I " + when)
		got := make([]byte, len(line))
		if _, err := conn.Write(line); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != string(line) {
			t.Fatalf("%s: %q, %v", when, got, err)
		}
	}
	d.reach(t, ctx, step)
	for i, move := range []struct {
		to, encapsulation string
		how               netns.Move
	}{
		{"cell", "udp", netns.Hard},
		{"office", "tcp", netns.Hard},
		{"hotel", "websocket", netns.Gap(500 * time.Millisecond)},
		{"wifi", "udp", netns.Hard},
	} {
		ask("before the move to " + move.to)
		host.Move(move.to, move.how)
		w.site.gate.set(min(size, int64(i+2)*step+ahead))
		ask("after the move to " + move.to)
		d.reach(t, ctx, int64(i+2)*step)
		w.client.await(t, ctx, "connected by "+move.encapsulation+" in "+move.to, func(s status) bool {
			return s.State == "connected" && s.Path.Encapsulation == move.encapsulation
		})
		if out := w.must(t, ctx, "curl", "--silent", "--show-error", "--fail", "http://site.test:8000/hello"); !strings.HasPrefix(out, "hello ") {
			t.Errorf("in %s: %q", move.to, out)
		}
		w.wantEcho(t, net.JoinHostPort(netns.TargetIPv4.String(), "7"), 1000)
	}
	d.wantSum(t, size)
	for _, l := range leaks {
		l.want(true)
	}
	stopTun(t, w.client)
	if after := w.routing(t, ctx); after.without("fe80:") != before.without("fe80:") {
		t.Errorf("before:\n%s\nafter:\n%s", before.text, after.text)
	}
}
