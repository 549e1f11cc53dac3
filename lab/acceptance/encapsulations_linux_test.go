//go:build netns

package acceptance

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

const lan = 5 * time.Millisecond // one way; near enough for a fast test

// deaf keeps a host from sending the ICMP messages that tell of the path's MTU.
const deaf = `
	table inet deaf {
		chain output {
			type filter hook output priority filter; policy accept;
			icmp type destination-unreachable drop
			icmpv6 type { destination-unreachable, packet-too-big } drop
		}
	}`

func TestUDPOnly(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.RandomPorts, Delay: lan, Firewall: netns.Firewall{
			Out: "meta l4proto != udp counter drop",
			In:  "meta l4proto != udp counter drop",
		}},
		fails:         map[string]string{"tcp": "connect", "websocket": "connect"},
		encapsulation: "udp", verdict: "napt",
	}.cross(t)
}

// Bare ESP comes after the first registration has found no translation. Data goes
// on by UDP where ESP passes a probe and nothing more.
func TestESP(t *testing.T) {
	for name, tt := range map[string]struct {
		network
		firewall netns.Firewall // once ESP is in use
		then     string
	}{
		"passes": {network: network{access: netns.AccessConfig{Delay: lan}}, then: "esp"},
		"IPv6": {network: network{
			access:   netns.AccessConfig{Delay: lan, Families: netns.IPv6},
			endpoint: net.JoinHostPort(netns.ServerIPv6.String(), "443"), listen: "[::]:443",
		}, then: "esp"},
		"probe only": {
			network:  network{access: netns.AccessConfig{Delay: lan}},
			firewall: netns.Firewall{Out: "meta l4proto esp counter drop", In: "meta l4proto esp counter drop"},
			then:     "udp",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := tt.network // not beside others: on a busy machine ESP seems silent, and is given up here
			w.encapsulation, w.verdict = "esp", "none"
			w.encapsulations = []string{"esp", "udp", "tcp"}
			w.also = func(t *testing.T, n *netns.Network, c *client) {
				// The doctor has had everything tried anew, so ESP is climbed to again.
				c.await(t, within(t, time.Minute), "connected by esp again", func(s status) bool {
					return s.State == "connected" && s.Path.Encapsulation == "esp"
				})
				n.Access[0].SetFirewall(tt.firewall)
				c.wantBothWays(t, within(t, time.Minute), siteURL)
				s := c.status(t)
				if s.Path.Encapsulation != tt.then || s.Path.Verdict != "none" {
					t.Errorf("then: %s", s)
				}
			}
			w.cross(t)
		})
	}
}

func TestTCPOnly(t *testing.T) {
	t.Parallel()
	network{
		access:        netns.AccessConfig{NAT: netns.KeepPorts, Delay: lan, Firewall: netns.TCPOnly},
		fails:         map[string]string{"udp": "registration"},
		encapsulation: "tcp", verdict: "nat",
	}.cross(t)
}

// TestFastOpen moves to a network that passes TCP alone: with the server's setting
// the registration rides in the SYN, and without it nothing is worse than before.
func TestFastOpen(t *testing.T) {
	for setting, want := range map[string]bool{"3": true, "1": false} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			n := netns.New(t, netns.Config{Access: []netns.AccessConfig{
				{Name: "wifi", NAT: netns.KeepPorts, Delay: lan},
				{Name: "office", NAT: netns.KeepPorts, Delay: lan, Firewall: netns.TCPOnly},
			}})
			n.Server.Sysctl("net.ipv4.tcp_fastopen", setting)
			s := startServer(t, n)
			c := startClient(t, s, n.Clients[0])
			n.Clients[0].Move("office", netns.Hard)
			c.await(t, within(t, time.Minute), "connected by tcp", func(s status) bool {
				return s.State == "connected" && s.Path.Encapsulation == "tcp" && s.Path.Verdict == "nat"
			})
			opened := counterOf(t, n.Server, "TCPFastOpenPassive")
			if (opened > 0) != want {
				t.Errorf("tcp_fastopen is %s: %d connections began with data", setting, opened)
			}
		})
	}
}

// counterOf reads a counter of the kernel's TCP in a host.
func counterOf(t *testing.T, h *netns.Host, name string) int {
	t.Helper()
	out, err := h.Command("cat", "/proc/net/netstat").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if at := slices.Index(names, name); at > 0 && at < len(values) {
			n, err := strconv.Atoi(values[at])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("the kernel has no counter %s", name)
	return 0
}

func TestIPv6Only(t *testing.T) {
	t.Parallel()
	network{
		access:        netns.AccessConfig{Families: netns.IPv6, Delay: lan},
		endpoint:      net.JoinHostPort(netns.ServerIPv6.String(), "443"),
		listen:        "[::]:443",
		encapsulation: "udp", verdict: "none",
	}.cross(t)
}

func TestOddUDPPort(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.RandomPorts, Delay: lan, Firewall: netns.Firewall{
			Out: "udp dport != 3478 counter drop\nmeta l4proto != udp counter drop",
			In:  "meta l4proto != udp counter drop",
		}},
		listen:        net.JoinHostPort(netns.ServerIPv4.String(), "3478"),
		fails:         map[string]string{"tcp": "connect", "websocket": "connect"},
		encapsulation: "udp", verdict: "napt",
	}.cross(t)
}

// Phones' calls by Wi-Fi need IPsec's port (RFC 3948), so it passes where others do
// not. The server that serves it too is found there in no more time.
func TestUDPPorts(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.RandomPorts, Delay: lan, Firewall: netns.Firewall{
			Out: "udp dport != 4500 counter drop\nmeta l4proto != udp counter drop",
			In:  "meta l4proto != udp counter drop",
		}},
		server:        []string{"--udp-port", "3478", "--udp-port", "4500"},
		tries:         []string{"udp", "udp-3478", "udp-4500", "tcp", "websocket", "http"},
		fails:         map[string]string{"udp": "registration", "udp-3478": "registration", "tcp": "connect", "websocket": "connect"},
		encapsulation: "udp-4500", verdict: "napt",
		also: func(t *testing.T, n *netns.Network, c *client) {
			n.Access[0].SetFirewall(netns.AllowAll)
			must(t, c.host.Host, "client", "force", "udp", "--dir", c.dir)
			c.await(t, within(t, time.Minute), "connected by udp", func(s status) bool {
				return s.State == "connected" && s.Path.Encapsulation == "udp"
			})
			must(t, c.host.Host, "client", "force", "auto", "--dir", c.dir)
			if err := c.upload(within(t, time.Minute), siteURL+"/upload"); err != nil {
				t.Errorf("with all ports open: %v", err)
			}
		},
	}.cross(t)
}

// The core stands for the home router that the server is behind.
func TestPortForward(t *testing.T) {
	t.Parallel()
	network{
		access:   netns.AccessConfig{Delay: lan},
		endpoint: "198.51.100.77:8443",
		before: func(_ *testing.T, n *netns.Network) {
			n.Core.Rules(`
				table ip forward {
					chain prerouting {
						type nat hook prerouting priority dstnat; policy accept;
						ip daddr 198.51.100.77 meta l4proto { tcp, udp } th dport 8443 dnat to 198.51.100.2:443
					}
				}`)
		},
		encapsulation: "udp", verdict: "destination",
	}.cross(t)
}

func TestSmallPacketsOnly(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.KeepPorts, Delay: lan, Firewall: netns.Firewall{
			Out: "meta l4proto udp meta length > 600 counter drop",
			In:  "meta l4proto udp meta length > 600 counter drop",
		}},
		fails:         map[string]string{"udp": "full size"},
		encapsulation: "tcp", verdict: "nat",
	}.cross(t)
}

// Nothing tells of the small MTU: probes have to find it.
func TestSmallMTU(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.KeepPorts, MTU: 1280},
		before: func(_ *testing.T, n *netns.Network) {
			n.Core.Rules(deaf)
			n.Access[0].Router.Rules(deaf)
		},
		encapsulation: "udp", verdict: "nat",
	}.cross(t)
}

func TestUploadDead(t *testing.T) {
	t.Parallel()
	network{
		// What begins a flow passes, so that the way down is open.
		access: netns.AccessConfig{NAT: netns.KeepPorts, Delay: lan, Firewall: netns.Firewall{
			Out: "meta l4proto udp meta length > 300 counter drop",
		}},
		fails:         map[string]string{"udp": "full size"},
		encapsulation: "tcp", verdict: "nat",
	}.cross(t)
}
