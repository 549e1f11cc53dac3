//go:build netns

package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// Programs that know nothing of proxies reach the target, by address and by name,
// with TCP, UDP and pings as they should be, and nothing leaves but carriers.
func TestTunMachine(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	w := newMachineWorld(t, netns.AccessConfig{Name: "wifi", NAT: netns.KeepPorts, Families: netns.DualStack, Delay: 5 * time.Millisecond})
	before := w.routing(t, ctx)
	w.client.run(t, "--tun")
	leaks := w.watchLeaks(t, "wifi")

	url4 := fmt.Sprintf("http://%s/hello", net.JoinHostPort(netns.TargetIPv4.String(), "8000"))
	url6 := fmt.Sprintf("http://%s/hello", net.JoinHostPort(netns.TargetIPv6.String(), "8000"))
	for _, url := range []string{url4, url6, "http://site.test:8000/hello", "http://only6.test:8000/hello"} {
		if out := w.must(t, ctx, "curl", "--silent", "--show-error", "--fail", url); !strings.HasPrefix(out, "hello ") {
			t.Errorf("%s gives %q", url, out)
		}
	}
	if out := w.must(t, ctx, "getent", "ahostsv4", "site.test"); !strings.Contains(out, netns.TargetIPv4.String()) {
		t.Errorf("getent gives %q", out)
	}
	if out, err := w.run(ctx, "getent", "hosts", "nobody.test"); err == nil {
		t.Errorf("a name that is not there gives %q", out)
	}
	// A refusal is a refusal, at once.
	if _, err := w.run(ctx, "curl", "--silent", "--show-error", fmt.Sprintf("http://%s:9/", netns.TargetIPv4)); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("a port where nobody listens: %v", err)
	}
	const size = 30 * mega
	w.download(t, ctx, fmt.Sprintf("http://site.test:8000/stream?size=%d", size)).wantSum(t, size)
	up := w.must(t, ctx, "sh", "-c", fmt.Sprintf("head -c %d /dev/zero | curl --silent --fail --data-binary @- http://site.test:8000/upload", 20*mega))
	if want := w.must(t, ctx, "sh", "-c", fmt.Sprintf("head -c %d /dev/zero | sha256sum", 20*mega)); !strings.HasPrefix(want, strings.TrimSpace(up)) || len(up) < 64 {
		t.Errorf("upload: %q, want %q", up, want)
	}
	for _, to := range []string{netns.TargetIPv4.String(), netns.TargetIPv6.String()} {
		for _, n := range []int{10, 1200, 4000} {
			w.wantEcho(t, net.JoinHostPort(to, "7"), n)
		}
	}
	if s := w.client.machine(t); s == nil || !s.Taken || s.Queries == 0 || s.DNS != "server" {
		t.Errorf("status says %+v", s)
	}
	if out := must(t, w.client.host.Host, "status", "--dir", w.client.dir); !strings.Contains(out, "all of it goes through the tunnel, by godwit0") {
		t.Errorf("status says %s", out)
	}
	leaks.want(true)

	stopTun(t, w.client)
	if after := w.routing(t, ctx); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before.text, after.text)
	}
}

// stopTun ends a client as a user does.
func stopTun(t *testing.T, c *client) {
	t.Helper()
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := c.Wait(within(t, time.Minute)); code != 0 || err != nil {
		t.Errorf("the client ends with %d, %v: %s", code, err, c.Stderr)
	}
}

// machineStatus is what the status says of the machine.
type machineStatus struct {
	Device  string `json:"device"`
	DNS     string `json:"dns"`
	Taken   bool   `json:"taken"`
	Queries uint64 `json:"queries"`
}

func (c *client) machine(t *testing.T) *machineStatus {
	t.Helper()
	var s struct{ Machine *machineStatus }
	if err := json.Unmarshal([]byte(must(t, c.host.Host, "status", "--json", "--dir", c.dir)), &s); err != nil {
		t.Fatal(err)
	}
	return s.Machine
}

// wantEcho sends a datagram of n bytes from the client's machine and wants it
// back, in one of some tries as UDP may lose it.
func (w *machineWorld) wantEcho(t *testing.T, to string, n int) {
	t.Helper()
	c, err := w.Clients[0].Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent, got := bytes.Repeat([]byte{7}, n), make([]byte, n+1)
	for range 30 {
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if k, err := c.Read(got); err == nil {
			if !bytes.Equal(got[:k], sent) {
				t.Errorf("%d bytes to %s came back altered", n, to)
			}
			return
		}
	}
	t.Errorf("%d bytes to %s never came back", n, to)
}
