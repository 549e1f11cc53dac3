//go:build netns

package interop

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/lab/netns"
)

// lossy drops two of ten packets in each direction. Handshakes get through; TCP
// is not fond of it, so there is little of it.
var lossy = netns.Firewall{
	Out: "numgen random mod 10 < 2 counter drop",
	In:  "numgen random mod 10 < 2 counter drop\n\t\t\t\taccept",
}

// halfOpen sends IKE_SA_INIT requests to a port and never goes on.
func halfOpen(t *testing.T, h *netns.Host, at string, n int) {
	t.Helper()
	c, err := h.DialContext(t.Context(), "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		s, err := ike.NewInitiator(ike.InitiatorConfig{Config: ike.Config{
			Local: ike.Identity{Type: ike.IDFQDN, Data: []byte("x")}, PSK: ike.Secret("x"), NewSPI: func() uint32 { return 4711 },
		}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range s.Events() {
			if send, ok := e.(ike.Send); ok {
				if _, err := c.Write(append(make([]byte, 4), send.Message...)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// await waits until a condition holds.
func await(t *testing.T, ctx context.Context, what string, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Situations that the client gets into with strongSwan as its gateway.
func TestClientScenarios(t *testing.T) {
	for _, tt := range []struct {
		name    string
		gateway strongSwan
		access  netns.AccessConfig
		args    []string // of client run
		before  func(t *testing.T, n *netns.Network)
		logged  string // at the gateway
		then    func(t *testing.T, ctx context.Context, gw *charon, c *client)
	}{
		{name: "another group is wanted", gateway: strongSwan{ike: "aes128gcm16-prfsha256-ecp256"}, logged: "N(INVAL_KE)"},
		{name: "cookie", gateway: strongSwan{charon: "cookie_threshold = 1\n  cookie_threshold_ip = 0"}, logged: "N(COOKIE)",
			before: func(t *testing.T, n *netns.Network) {
				halfOpen(t, n.Clients[0].Host, netip.AddrPortFrom(netns.ServerIPv4, 4500).String(), 2)
			}},
		{name: "another group is wanted at rekeying", gateway: strongSwan{esp: "aes128gcm16-ecp256-noesn"}, args: []string{"--child-lifetime=1s"}, logged: "N(INVAL_KE)",
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				await(t, ctx, "a Child SA is rekeyed", func() bool { _, n := gw.rekeyings(); return n > 0 })
			}},
		{name: "selectors are narrowed", gateway: strongSwan{child: "local_ts = 192.0.2.0/24"},
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				if conn, err := c.DialContext(ctx, "tcp", "203.0.113.200:80"); err == nil || !strings.Contains(err.Error(), "not allowed") {
					t.Errorf("a target outside the selectors gives %v, %v", conn, err)
				}
			}},
		{name: "the gateway asks for signs of life", gateway: strongSwan{connection: "dpd_delay = 1s"},
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				await(t, ctx, "three questions", func() bool { return strings.Count(gw.log(), "sending DPD request") >= 3 })
			}},
		{name: "two of ten packets are lost", gateway: strongSwan{charon: "retransmit_base = 1.2\n  retransmit_tries = 20"}, access: netns.AccessConfig{Firewall: lossy}},
		{name: "the gateway deletes the Child SA",
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				gw.swanctl("--terminate", "--child", "net")
				await(t, ctx, "a new link", func() bool {
					return strings.Count(gw.log(), "established with SPIs") >= 2 && c.status().State == "connected"
				})
			}},
		{name: "the gateway deletes the IKE SA",
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				gw.swanctl("--terminate", "--ike", "rw")
				await(t, ctx, "a new link", func() bool {
					return strings.Count(gw.log(), "established with SPIs") >= 2 && c.status().State == "connected"
				})
			}},
		{name: "the client comes back after a crash", logged: "destroying duplicate IKE_SA",
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				c.Kill()
				c.run()
			}},
		{name: "the client says goodbye, and comes back", logged: "received DELETE for IKE_SA",
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				for range 3 {
					_ = c.Signal(syscall.SIGTERM)
					if code, err := c.Wait(ctx); code != 0 || err != nil {
						t.Errorf("exit code %d, %v", code, err)
					}
					c.run()
				}
			}},
		{name: "a NAT changes its mapping", access: netns.AccessConfig{NAT: netns.RandomPorts},
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				before := gw.swanctl("--list-sas")
				flush(t, c.access)
				echoes(t, ctx, c.DialContext, echoAddress, 1<<20)
				if after := gw.swanctl("--list-sas"); strings.Count(before, "ESTABLISHED") != strings.Count(after, "ESTABLISHED") {
					t.Errorf("not the same IKE SA: %s and %s", before, after)
				}
			}},
		{name: "the gateway wants the Child SA afterwards", gateway: strongSwan{connection: "childless = force"}, logged: "parsed CREATE_CHILD_SA request"},
		{name: "the gateway wants another authentication", gateway: strongSwan{connection: "reauth_time = 4s\n    over_time = 2s\n    rekey_time = 0s"},
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				await(t, ctx, "an IKE SA made anew", func() bool { return strings.Count(gw.log(), "is initiating an IKE_SA") >= 2 })
			}},
		{name: "the gateway takes the client for dead", gateway: strongSwan{connection: "dpd_delay = 1s", charon: "retransmit_base = 1\n  retransmit_tries = 2"}, logged: "giving up after",
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				c.access.SetFirewall(netns.NoTraffic)
				gw.logged(ctx, "giving up after")
				c.access.SetFirewall(netns.AllowAll)
			}},
		{name: "the gateway restarts",
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				gw.restart()
				echoes(t, ctx, c.DialContext, echoAddress, 1<<12)
				if err := c.Stderr.Expect(ctx, "the gateway does not answer; trying a new IKE SA"); err != nil {
					t.Errorf("it waited until the old one was given up: %v", err)
				}
			}},
		{name: "packets arrive twice and out of order", access: netns.AccessConfig{Delay: 2 * time.Millisecond},
			before: func(t *testing.T, n *netns.Network) { n.Access[0].Relay.SetFaults(disorder) },
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				echoes(t, ctx, c.DialContext, echoAddress, 1<<20)
				if n := c.status().Dropped; n == 0 {
					t.Error("no copy was dropped")
				}
			}},
		{name: "the path takes packets of 1,400 bytes", access: netns.AccessConfig{MTU: 1400},
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				echoes(t, ctx, c.DialContext, echoAddress, 1<<20)
			}},
		{name: "an idle client keeps the NAT's mapping alive", access: netns.AccessConfig{NAT: netns.RandomPorts},
			before: countKeepalives,
			then: func(t *testing.T, ctx context.Context, gw *charon, c *client) {
				await(t, ctx, "a keepalive", func() bool { return keepalives(t, c.access.Router) > 0 })
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.access.Name = "home"
			n := gatewayNetwork(t, netns.Config{Access: []netns.AccessConfig{tt.access}})
			ctx := within(t, 2*time.Minute)
			tt.gateway.gateway = true
			gw := startCharon(t, n.Server, tt.gateway)
			if tt.before != nil {
				tt.before(t, n)
			}
			c := pskClient(t, n.Clients[0].Host)
			c.access = n.Access[0]
			c.run(tt.args...)
			echoes(t, ctx, c.DialContext, echoAddress, 1<<12)
			if tt.then != nil {
				tt.then(t, ctx, gw, c)
				echoes(t, ctx, c.DialContext, echoAddress, 1<<16)
			}
			gw.logged(ctx, tt.logged)
		})
	}
}

// flush has the router of the client's network forget its mappings, and give
// others.
func flush(t *testing.T, a *netns.Access) {
	t.Helper()
	if out, err := a.Router.Command("conntrack", "-F").CombinedOutput(); err != nil {
		t.Fatalf("conntrack: %v: %s", err, out)
	}
}

// Situations that the server gets into with strongSwan as a road warrior.
func TestServerScenarios(t *testing.T) {
	for _, tt := range []struct {
		name   string
		client strongSwan
		access netns.AccessConfig
		before func(t *testing.T, n *netns.Network)
		logged string // at the client
		then   func(t *testing.T, ctx context.Context, s *server, cl *charon)
	}{
		{name: "another group is wanted", client: strongSwan{ike: "aes128gcm16-prfsha256-modp3072-x25519"}, logged: "N(INVAL_KE)"},
		{name: "cookie", logged: "N(COOKIE)",
			before: func(t *testing.T, n *netns.Network) {
				halfOpen(t, n.Clients[0].Host, netip.AddrPortFrom(netns.ServerIPv4, 4500).String(), 80)
			}},
		{name: "another group is wanted at rekeying", client: strongSwan{esp: "aes128gcm16-modp3072-x25519-noesn"}, logged: "N(INVAL_KE)",
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				cl.swanctl("--rekey", "--child", "net")
				await(t, ctx, "a Child SA is rekeyed", func() bool { _, n := cl.rekeyings(); return n > 0 })
			}},
		{name: "the client asks for signs of life", client: strongSwan{connection: "dpd_delay = 1s"},
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				await(t, ctx, "three questions", func() bool { return strings.Count(cl.log(), "sending DPD request") >= 3 })
			}},
		{name: "two of ten packets are lost", client: strongSwan{charon: "retransmit_base = 1.2\n  retransmit_tries = 20"}, access: netns.AccessConfig{Firewall: lossy}},
		{name: "the client deletes the Child SA",
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				cl.swanctl("--terminate", "--child", "net")
				if out := cl.connect(); !strings.Contains(out, "completed successfully") {
					t.Errorf("no other Child SA: %s", out)
				}
			}},
		{name: "the client goes and comes back",
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				for range 3 {
					cl.swanctl("--terminate", "--ike", "rw")
					if out := cl.connect(); !strings.Contains(out, "completed successfully") {
						t.Errorf("not again: %s", out)
					}
				}
			}},
		{name: "the client reauthenticates", client: strongSwan{connection: "reauth_time = 3s\n    over_time = 2s\n    rekey_time = 0s"},
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				await(t, ctx, "an IKE SA made anew", func() bool { return strings.Count(cl.log(), "initiating IKE_SA") >= 2 })
				await(t, ctx, "it is established", func() bool { return strings.Contains(cl.swanctl("--list-sas"), "INSTALLED") })
			}},
		{name: "the server restarts", client: strongSwan{connection: "dpd_delay = 1s", charon: "retransmit_base = 1\n  retransmit_tries = 2", child: "dpd_action = restart"},
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				s.Kill()
				s.run()
				await(t, ctx, "an IKE SA made anew", func() bool { return strings.Count(cl.log(), "initiating IKE_SA") >= 2 })
				await(t, ctx, "it is established", func() bool { return strings.Contains(cl.swanctl("--list-sas"), "INSTALLED") })
			}},
		{name: "the client wants the Child SA afterwards", client: strongSwan{connection: "childless = force"}, logged: "generating CREATE_CHILD_SA request"},
		{name: "selectors are narrowed", client: strongSwan{child: "remote_ts = 192.0.2.0/28"},
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				if sas := cl.swanctl("--list-sas"); !strings.Contains(sas, "local  10.143.0.2/32") || !strings.Contains(sas, "remote 192.0.2.0/28") {
					t.Errorf("the client says: %s", sas)
				}
			}},
		{name: "a NAT changes its mapping", client: strongSwan{connection: "dpd_delay = 1s"}, access: netns.AccessConfig{NAT: netns.RandomPorts},
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				flush(t, cl.access)
				if err := s.Stderr.Expect(ctx, "client moved"); err != nil {
					t.Error(err)
				}
				if n := strings.Count(cl.log(), "initiating IKE_SA"); n != 1 {
					t.Errorf("%d IKE SAs were made", n)
				}
			}},
		{name: "the client takes the server for dead", client: strongSwan{connection: "dpd_delay = 1s", charon: "retransmit_base = 1\n  retransmit_tries = 2", child: "dpd_action = restart"}, logged: "giving up after",
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				cl.access.SetFirewall(netns.NoTraffic)
				cl.logged(ctx, "giving up after")
				cl.access.SetFirewall(netns.AllowAll)
				await(t, ctx, "a new link", func() bool { return strings.Contains(cl.swanctl("--list-sas"), "INSTALLED") })
			}},
		{name: "packets arrive twice and out of order", access: netns.AccessConfig{Delay: 2 * time.Millisecond},
			before: func(t *testing.T, n *netns.Network) { n.Access[0].Relay.SetFaults(disorder) },
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				echoes(t, ctx, cl.host.DialContext, echoAddress, 1<<20)
				onceEach(t, ctx, cl.host, 200)
			}},
		{name: "inner packets of up to 1,400 bytes",
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				echoes(t, ctx, cl.host.DialContext, echoAddress, 1<<20)
				ping(t, ctx, cl.host, "-M", "do", "-s", "1372")
				if out, err := cl.host.Command("ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1373", netns.TargetIPv4.String()).CombinedOutput(); err == nil {
					t.Errorf("a larger one passes in one piece: %s", out)
				}
			}},
		{name: "the path takes packets of 1,400 bytes", access: netns.AccessConfig{MTU: 1400},
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				echoes(t, ctx, cl.host.DialContext, echoAddress, 1<<20)
			}},
		{name: "an idle client keeps the NAT's mapping alive", client: strongSwan{charon: "keep_alive = 1s"}, access: netns.AccessConfig{NAT: netns.RandomPorts},
			before: countKeepalives,
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				await(t, ctx, "three keepalives", func() bool { return keepalives(t, cl.access.Router) >= 3 })
			}},
		{name: "the client comes back after a crash",
			then: func(t *testing.T, ctx context.Context, s *server, cl *charon) {
				cl.restart()
				if out := cl.connect(); !strings.Contains(out, "completed successfully") {
					t.Errorf("not again: %s", out)
				}
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.access.Name = "home"
			n := serverNetwork(t, netns.Config{Access: []netns.AccessConfig{tt.access}})
			ctx := within(t, 2*time.Minute)
			s := startServer(t, n, "")
			if tt.before != nil {
				tt.before(t, n)
			}
			cl := startCharon(t, n.Clients[0].Host, tt.client)
			cl.access = n.Access[0]
			if out := cl.connect(); !strings.Contains(out, "completed successfully") {
				t.Fatalf("not connected: %s", out)
			}
			echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<12)
			if tt.then != nil {
				tt.then(t, ctx, s, cl)
				echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<16)
			}
			cl.logged(ctx, tt.logged)
		})
	}
}

// A user that is removed loses its link, and a user's file is for the owner's
// eyes only.
func TestServerUserRemoved(t *testing.T) {
	n := serverNetwork(t, netns.Config{})
	ctx := within(t, 2*time.Minute)
	s := startServer(t, n, "")
	info, err := os.Stat(filepath.Join(s.dir, "clients", "carol.toml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the secret: %v, %v", info, err)
	}
	cl := startCharon(t, n.Clients[0].Host, strongSwan{})
	if out := cl.connect(); !strings.Contains(out, "completed successfully") {
		t.Fatalf("not connected: %s", out)
	}
	s.must("", "remove", "carol")
	cl.logged(ctx, "received DELETE for IKE_SA")
	if out := cl.connect(); !strings.Contains(out, "AUTHENTICATION_FAILED") {
		t.Errorf("a removed user comes in: %s", out)
	}
}
