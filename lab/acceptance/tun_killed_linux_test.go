//go:build netns

package acceptance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

var tunNetwork = netns.AccessConfig{Name: "wifi", NAT: netns.KeepPorts, Families: netns.DualStack}

// A killed client leaves a machine that cleanup, or the next start, puts back to
// the last byte. What others have changed meanwhile stays.
func TestTunMachineKilled(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	w := newMachineWorld(t, tunNetwork)
	before := w.routing(t, ctx)
	names := filepath.Join("/etc/netns", w.Clients[0].NS, "resolv.conf")
	cleanup := func(want string) {
		t.Helper()
		if out := must(t, w.client.host.Host, "client", "cleanup", "--dir", w.client.dir); !strings.Contains(out, want) {
			t.Errorf("cleanup says %q, want %q", out, want)
		}
	}
	cleanup("nothing to restore")

	w.client.run(t, "--tun")
	if o := command(t, ctx, w.client.host.Host, "client", "cleanup", "--dir", w.client.dir); o.code == 0 || !strings.Contains(o.stderr, "a client is running") {
		t.Errorf("cleanup beside a client: %+v", o)
	}
	w.client.Kill()
	if now := w.routing(t, ctx); now == before {
		t.Fatal("a killed client leaves nothing: this test proves nothing")
	}
	// All of the machine is on its own network again but for its names.
	if err := w.pings(ctx, netns.ServerIPv4.String()); err != nil {
		t.Errorf("after a kill: %v", err)
	}
	if out := must(t, w.client.host.Host, "doctor", "--dir", w.client.dir); !strings.Contains(out, "run godwit client cleanup") {
		t.Errorf("doctor says %s", out)
	}
	cleanup("restored")
	if after := w.routing(t, ctx); after != before {
		t.Errorf("after cleanup, before:\n%s\nafter:\n%s", before.text, after.text)
	}
	cleanup("nothing to restore")

	// The next start repairs too, whether it is for the machine again or not.
	w.client.run(t, "--tun")
	w.client.Kill()
	w.client.run(t, "--tun")
	if out := w.must(t, ctx, "curl", "--silent", "--show-error", "--fail", "http://site.test:8000/hello"); !strings.HasPrefix(out, "hello ") {
		t.Errorf("after a second start: %q", out)
	}
	w.client.Kill()
	w.client.run(t)
	if after := w.routing(t, ctx); after != before {
		t.Errorf("after a start without tun, before:\n%s\nafter:\n%s", before.text, after.text)
	}
	stopTun(t, w.client)

	// Somebody else writes the names meanwhile, as DHCP does: name servers
	// elsewhere, or in the local network, whom nobody is to ask.
	for _, theirs := range []string{"nameserver 192.0.2.53\n", "nameserver 10.1.0.1\n# by DHCP\n"} {
		w.client.run(t, "--tun")
		leaks := w.watchLeaks(t, "wifi")
		if err := os.WriteFile(names, []byte(theirs), 0o644); err != nil {
			t.Fatal(err)
		}
		if out := w.must(t, ctx, "getent", "ahostsv4", "site.test"); !strings.Contains(out, netns.TargetIPv4.String()) {
			t.Errorf("with other name servers: %q", out)
		}
		leaks.want(false)
		leaks.stop()
		w.client.Kill()
		cleanup("restored")
		if b, err := os.ReadFile(names); err != nil || string(b) != theirs {
			t.Errorf("the names of others have become %q, %v", b, err)
		}
	}
}

// pings sends one ping.
func (w *machineWorld) pings(ctx context.Context, to string) error {
	_, err := w.run(ctx, "ping", "-c", "1", "-W", "10", to)
	return err
}

// With the kill switch nothing leaves outside of the tunnel: not before there is
// one, not while its path is lost, not after a crash; until cleanup.
func TestTunMachineKillSwitch(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	w := newMachineWorld(t, tunNetwork)
	before := w.routing(t, ctx)
	access := w.Access[0]
	leaks := w.watchLeaks(t, "wifi")
	fetch := func(ctx context.Context) error {
		_, err := w.run(ctx, "curl", "--silent", "--show-error", "--fail", "http://site.test:8000/hello")
		return err
	}
	// wantClosed tries what would leave, in all ways that there are.
	wantClosed := func(when string) {
		t.Helper()
		var tries sync.WaitGroup
		for _, args := range [][]string{
			{"curl", "--silent", "--max-time", "1", fmt.Sprintf("http://%s:8000/hello", netns.ServerIPv4)},
			{"curl", "--silent", "--max-time", "1", "http://[fd00:5::2]:8000/hello"},
			{"curl", "--silent", "--max-time", "1", "--interface", "wifi", fmt.Sprintf("http://%s:8000/hello", netns.ServerIPv4)},
			{"curl", "--silent", "--max-time", "1", "--interface", "wifi", "http://[fd00:5::2]:8000/hello"},
			{"timeout", "1", "getent", "ahosts", "elsewhere.test"},
			{"ping", "-c", "1", "-W", "1", netns.ServerIPv4.String()},
		} {
			tries.Go(func() {
				if out, err := w.run(ctx, args[0], args[1:]...); err == nil {
					t.Errorf("%s: %v gives %q", when, args, out)
				}
			})
		}
		tries.Wait()
		leaks.want(false)
		if t.Failed() {
			t.Fatal(when)
		}
	}
	access.SetFirewall(netns.NoTraffic)
	w.client.Process = w.client.host.Start(godwit, "client", "run", "--dir", w.client.dir, "--tun", "--kill-switch")
	for !strings.Contains(w.must(t, ctx, "ip", "-6", "rule"), "lookup 1080") {
		time.Sleep(20 * time.Millisecond)
	}
	wantClosed("before there is a tunnel")

	access.SetFirewall(netns.AllowAll)
	if err := w.client.Stdout.Expect(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	if err := fetch(ctx); err != nil {
		t.Fatal(err)
	}
	access.SetFirewall(netns.NoTraffic)
	wantClosed("without a path")
	waited := make(chan error, 1)
	go func() {
		_, err := w.run(ctx, "curl", "--silent", "--show-error", "--fail", fmt.Sprintf("http://%s:8000/hello", netns.TargetIPv4))
		waited <- err
	}()
	// The network is gone altogether, and comes back.
	w.Clients[0].Detach("wifi")
	wantClosed("without a network")
	access.SetFirewall(netns.AllowAll)
	w.Clients[0].Attach("wifi")
	w.Clients[0].Prefer("wifi")
	if err := <-waited; err != nil {
		t.Errorf("what began without a network: %v", err)
	}
	leaks.want(true)

	w.client.Kill()
	wantClosed("after a crash")
	w.client.run(t, "--tun", "--kill-switch")
	if err := fetch(ctx); err != nil {
		t.Errorf("after a crash and a new start: %v", err)
	}
	leaks.want(true)
	w.client.Kill()
	must(t, w.client.host.Host, "client", "cleanup", "--dir", w.client.dir)
	if after := w.routing(t, ctx); after.without("fe80:") != before.without("fe80:") {
		t.Errorf("before:\n%s\nafter:\n%s", before.text, after.text)
	}
	open := func(when string) {
		t.Helper()
		if err := w.pings(ctx, netns.ServerIPv4.String()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	open("after cleanup")

	// An end that was asked for opens the machine; that the server refuses the
	// client does not.
	w.client.run(t, "--tun", "--kill-switch")
	stopTun(t, w.client)
	open("after the end")
	leaks.stop() // it has seen pings
	must(t, w.server.host, "server", "remove", w.Clients[0].Name, "--dir", w.server.dir)
	leaks = w.watchLeaks(t, "wifi")
	w.client.Process = w.client.host.Start(godwit, "client", "run", "--dir", w.client.dir, "--tun", "--kill-switch")
	if code, err := w.client.Wait(ctx); code == 0 || err != nil {
		t.Fatalf("a client that is refused ends with %d, %v", code, err)
	}
	wantClosed("after a refusal")
	must(t, w.client.host.Host, "client", "cleanup", "--dir", w.client.dir)
	open("after the last cleanup")
}
