//go:build netns

package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	for _, args := range [][]string{
		{"site.test", "AAAA"}, {"+tcp", "site.test", "AAAA"}, {"@10.1.0.1", "site.test", "AAAA"}, {"@" + netns.TargetIPv4.String(), "site.test", "AAAA"},
	} {
		if out := w.must(t, ctx, "dig", append([]string{"+short", "+timeout=5", "+tries=5"}, args...)...); strings.TrimSpace(out) != netns.TargetIPv6.String() {
			t.Errorf("dig %v gives %q", args, out)
		}
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
	// Nobody takes a host for reachable that was not asked, and nobody waits.
	for _, to := range []string{netns.TargetIPv4.String(), netns.TargetIPv6.String()} {
		if out, err := w.run(ctx, "ping", "-c", "1", "-W", "30", to); err == nil || !strings.Contains(out, "prohibited") && !strings.Contains(out, "filtered") {
			t.Errorf("ping: %q, %v", out, err)
		}
	}
	for _, to := range []string{"198.18.71.2", "fd67:6f64:7769:74::2"} {
		w.must(t, ctx, "ping", "-c", "1", "-W", "30", to)
	}
	if s := w.client.machine(t); s == nil || !s.Taken || s.Queries == 0 || s.DNS != "server" {
		t.Errorf("status says %+v", s)
	}
	if out := must(t, w.client.host.Host, "status", "--dir", w.client.dir); !strings.Contains(out, "goes through the tunnel whole, by godwit0") {
		t.Errorf("status says %s", out)
	}
	// Who asks how the network is does not ask through the tunnel.
	if out := must(t, w.client.host.Host, "doctor", "--dir", w.client.dir); !strings.Contains(out, "This machine goes through the tunnel whole") || strings.Contains(out, "TLS is intercepted") {
		t.Errorf("doctor says %s", out)
	}
	leaks.want(true)

	stopTun(t, w.client)
	if after := w.routing(t, ctx); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before.text, after.text)
	}
}

// The client's network has IPv6 alone, and programs have both versions.
func TestTunMachineIPv6Network(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	w := newMachineWorld(t, netns.AccessConfig{Name: "wifi", Families: netns.IPv6})
	w.client.run(t, "--tun")
	leaks := w.watchLeaks(t, "wifi")
	for _, to := range []string{netns.TargetIPv4.String(), netns.TargetIPv6.String(), "site.test"} {
		w.must(t, ctx, "curl", "--silent", "--show-error", "--fail", fmt.Sprintf("http://%s/hello", net.JoinHostPort(to, "8000")))
	}
	w.wantEcho(t, net.JoinHostPort(netns.TargetIPv4.String(), "7"), 1200)
	if s := w.client.status(t); !strings.Contains(s.Path.Remote, netns.ServerIPv6.String()) {
		t.Errorf("the tunnel is not over IPv6: %s", s)
	}
	leaks.want(true)
}

// What is excluded, and the local network, are reached directly; where the local
// network is not to be, it is not.
func TestTunMachineSplit(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	w := newMachineWorld(t, netns.AccessConfig{Name: "wifi", NAT: netns.KeepPorts})
	router := "10.1.0.1:9000"
	who := func(c net.Conn) { fmt.Fprint(c, c.RemoteAddr()) }
	w.Access[0].Router.Serve(router, who)
	elsewhere := net.JoinHostPort(netns.ServerIPv4.String(), "9000")
	w.Server.Serve(elsewhere, who)
	w.Target.Serve("[::]:9000", who)
	target := net.JoinHostPort(netns.TargetIPv4.String(), "9000")
	const refused = "refused"
	ask := func(at string) string {
		t.Helper()
		c, err := w.Clients[0].DialContext(ctx, "tcp", at)
		if err != nil {
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %v", at, err)
			}
			return refused
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%s: %v", at, err)
		}
		host, _, _ := net.SplitHostPort(string(b))
		return host
	}
	own, uplink := w.Clients[0].Addresses("wifi")[0].String(), w.Access[0].Uplink.String()
	const server = "192.0.2.1" // as the target sees it
	for _, tt := range []struct {
		flags                     []string
		router, elsewhere, target string // who is seen there
	}{
		// The server's own addresses are not for its clients.
		{nil, own, refused, server},
		{[]string{"--tun-lan=false"}, refused, refused, server},
		{[]string{"--tun-exclude", netns.ServerIPv4.String()}, own, uplink, server},
		{[]string{"--tun-include", netns.TargetNet.String()}, own, uplink, server},
	} {
		w.client.run(t, append([]string{"--tun"}, tt.flags...)...)
		if r, e, g := ask(router), ask(elsewhere), ask(target); r != tt.router || e != tt.elsewhere || g != tt.target {
			t.Errorf("%v: the router sees %s, the host elsewhere %s, the target %s; want %s, %s, %s", tt.flags, r, e, g, tt.router, tt.elsewhere, tt.target)
		}
		stopTun(t, w.client)
	}
}

// Where it cannot be done it is said why, and nothing is changed.
func TestTunMachineErrors(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	w := newMachineWorld(t, netns.AccessConfig{Name: "wifi"})
	host := w.Clients[0].Host
	before := w.routing(t, ctx)
	args := func(program ...string) []string {
		return append(program, godwit, "client", "run", "--dir", w.client.dir, "--tun")
	}
	for _, tt := range []struct {
		run  []string
		want string
	}{
		{args("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"), "this needs root, or CAP_NET_ADMIN, --tun: run as root, or without tun"},
		{args("sh", "-c", `mount -t tmpfs none /dev/net && exec "$@"`, "sh"), "it has no /dev/net/tun"},
		// What fails halfway is taken back.
		{args("sh", "-c", `mount -o remount,ro,bind /etc/resolv.conf && exec "$@"`, "sh"), "read-only file system"},
		{append(args(), "--tun-device", "lo"), "there is a device lo already"},
		{append(args(), "--tun-mtu", "1000"), "not a whole number from 1280 to 65535"},
		{append(args(), "--tun-dns", "dns.example.org"), "is no name server that can be asked through the tunnel"},
	} {
		out, err := w.run(ctx, tt.run[0], tt.run[1:]...)
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%v says %q, want %q", tt.run, out, tt.want)
		}
	}
	w.client.run(t, "--tun")
	second := t.TempDir()
	must(t, host, "client", "join", w.server.invite(t, "second"), "--dir", second)
	if out, err := w.run(ctx, godwit, "client", "run", "--dir", second, "--listen", "127.0.0.1:1081", "--tun"); err == nil || !strings.Contains(out, "there is a device godwit0 already") {
		t.Errorf("a second client says %q", out)
	}
	if out, err := w.run(ctx, godwit, "client", "run", "--dir", second, "--listen", "127.0.0.1:1081", "--tun", "--tun-device", "other0"); err == nil || !strings.Contains(out, "is of another client of this machine") {
		t.Errorf("a second client with a device of its own says %q", out)
	}
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
