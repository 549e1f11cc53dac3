//go:build netns

package acceptance

import (
	"crypto/md5"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

const (
	squidUser = "ali"
	squidPass = "o:p@n s/sam"
	squidAuth = "ali:o%3Ap%40n%20s%2Fsam@"
)

// squidAt is where the proxy listens: on the core, as nobody but the server has
// a route to the target.
const squidAt = "198.51.100.1:3128"

// onlyProxy passes nothing but the way to the proxy.
var onlyProxy = netns.Firewall{Out: `
	tcp dport 3128 accept
	counter drop`}

// squids are the ways that the proxy lets a client in.
var squids = []struct{ name, user, rules string }{
	{"without authentication", "", "http_access allow CONNECT"},
	{"basic", squidAuth, `
auth_param basic program BASIC
auth_param basic realm office
acl known proxy_auth REQUIRED
http_access allow CONNECT known`},
	{"digest", squidAuth, `
auth_param digest program /usr/lib/squid/digest_file_auth -c DIGEST
auth_param digest realm office
acl known proxy_auth REQUIRED
http_access allow CONNECT known`},
}

// startSquid runs Debian's squid on the core, which lets in whom rules say.
func startSquid(t *testing.T, n *netns.Network, rules string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	sum := md5.Sum([]byte(squidUser + ":office:" + squidPass))
	digest := write("digest", squidUser+":office:"+hex.EncodeToString(sum[:])+"\n")
	// The helper asks whether the line it is given, with the space escaped, is the
	// one user's.
	basic := write("basic", "#!/bin/sh\nwhile read -r line; do\n[ \"$line\" = 'ali o:p@n%20s/sam' ] && echo OK || echo ERR\ndone\n")
	// Squid gives up root before it starts its helpers.
	for _, f := range []string{basic, dir, filepath.Dir(dir)} {
		if err := os.Chmod(f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := write("squid.conf", strings.NewReplacer("BASIC", basic, "DIGEST", digest).Replace(`
http_port 0.0.0.0:3128
pid_filename none
access_log none
cache_log /dev/null
cache deny all
shutdown_lifetime 0 seconds
visible_hostname proxy.office
pinger_enable off
`+rules+"\nhttp_access deny all\n"))
	p := n.Core.Start("sh", "-c", "exec squid -N -d1 -f "+conf+" 2>&1")
	if err := p.Stdout.Expect(within(t, time.Minute), "Accepting HTTP Socket connections"); err != nil {
		t.Fatalf("squid: %v", err)
	}
}

// useSquid has the client go through the proxy.
func useSquid(t *testing.T, c *client, user string) {
	t.Helper()
	changeFile(t, filepath.Join(c.dir, "client.toml"), `proxy = "environment"`, `proxy = "http://`+user+squidAt+`"`)
}

// Where only an HTTP proxy leads out, the client goes through it, however the
// proxy wants to be asked.
func TestSquid(t *testing.T) {
	for _, s := range squids {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			network{
				access:        netns.AccessConfig{NAT: netns.KeepPorts, Firewall: onlyProxy},
				before:        func(t *testing.T, n *netns.Network) { startSquid(t, n, s.rules) },
				joined:        func(t *testing.T, c *client) { useSquid(t, c, s.user) },
				fails:         map[string]string{"udp": "registration"},
				encapsulation: "tcp", verdict: "intermediary", proxied: true,
			}.cross(t)
		})
	}
}

// A link goes on in another network that has the same proxy, which is asked anew
// and given what it is known to want.
func TestSquidMove(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{
		{Name: "desk", NAT: netns.KeepPorts, Firewall: onlyProxy},
		{Name: "meeting", NAT: netns.KeepPorts, Firewall: onlyProxy},
	}})
	startSquid(t, n, squids[2].rules)
	startSite(t, n, siteAddress).gate.set(each)
	c := joinClient(t, startServer(t, n), n.Clients[0])
	useSquid(t, c, squidAuth)
	c.run(t)
	inner := c.status(t).Inner
	n.Clients[0].Move("meeting", netns.Hard)
	local := n.Clients[0].Addresses("meeting")[0].String()
	at := c.await(t, ctx, "connected from "+local, func(s status) bool {
		return s.State == "connected" && strings.HasPrefix(s.Path.Local, local+":") &&
			s.Path.Encapsulation == "tcp" && s.Path.Verdict == "intermediary"
	})
	if !slices.Equal(at.Inner, inner) {
		t.Errorf("inner addresses %v before and %v after", inner, at.Inner)
	}
	if err := c.fetch(ctx, siteURL+"/stream?size="+strconv.Itoa(each)); err != nil {
		t.Errorf("after the move: %v", err)
	}
}
