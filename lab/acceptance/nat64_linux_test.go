//go:build netns

package acceptance

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/godwit-net/godwit/lab/netns"
)

// nat64Prefix is a network's own: the Well-Known Prefix must not be used for addresses
// that are not global, as the laboratory's are.
const nat64Prefix = "2001:db8:64::"

// translate gives an access network with IPv6 alone a NAT64, Debian's tayga, on its
// router, and name servers that tell of it.
func translate(t *testing.T, n *netns.Network, at int) {
	t.Helper()
	a := n.Access[at]
	r := a.Router
	// The router has IPv4 outwards; nobody behind it does.
	n.Core.Address(a.Name, netip.MustParsePrefix("203.0.113.253/30"))
	r.Address("up", netip.MustParsePrefix("203.0.113.254/30"))
	r.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("203.0.113.253"), "up", 0)
	dir := t.TempDir()
	conf := filepath.Join(dir, "tayga.conf")
	if err := os.WriteFile(conf, []byte(`
tun-device nat64
ipv4-addr 192.168.255.1
ipv6-addr 2001:db8:65::1
prefix `+nat64Prefix+`/96
dynamic-pool 192.168.255.0/24
data-dir `+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"tayga --mktun --config " + conf,
		"ip link set nat64 up",
		"ip route add 192.168.255.0/24 dev nat64",
		"ip -6 route add " + nat64Prefix + "/96 dev nat64",
	} {
		f := strings.Fields(line)
		if out, err := r.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	r.Start("tayga", "--nodetach", "--config", conf)

	server := netip.MustParseAddr("fd00:a0" + string(rune('0'+at)) + "::1")
	n.Clients[0].Resolver(server)
	serveDNS64(t, r.ListenPacket("udp", net.JoinHostPort(server.String(), "53")))
}

// serveDNS64 answers for the name by which clients find NAT64 (RFC 7050), and knows no
// other, until the test ends.
func serveDNS64(t *testing.T, c net.PacketConn) {
	done := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:k]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m = dnsmessage.Message{
				Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true},
				Questions: m.Questions,
			}
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
			for _, last := range []byte{170, 171} {
				switch {
				case q.Name.String() != "ipv4only.arpa.":
					m.RCode = dnsmessage.RCodeNameError
				case q.Type == dnsmessage.TypeA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 0, last}}})
				case q.Type == dnsmessage.TypeAAAA:
					a := netip.MustParseAddr(nat64Prefix).As16()
					copy(a[12:], []byte{192, 0, 0, last})
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a}})
				}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(b, from)
			}
		}
	}()
}

// The client has IPv6 alone and the link names an IPv4 address, which is reached through
// the network's NAT64.
func TestNAT64(t *testing.T) {
	t.Parallel()
	network{
		access:        netns.AccessConfig{Families: netns.IPv6, NAT: netns.KeepPorts, Delay: lan},
		before:        func(t *testing.T, n *netns.Network) { translate(t, n, 0) },
		encapsulation: "udp", verdict: "protocol", nat64: nat64Prefix + "/96",
	}.cross(t)
}

// A download goes on where IPv4 ends and NAT64 begins, and back.
func TestNAT64Moves(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*time.Minute)
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{
		{Name: "wifi", NAT: netns.KeepPorts, Delay: lan},
		{Name: "cell", Families: netns.IPv6, NAT: netns.KeepPorts, Delay: lan},
	}})
	translate(t, n, 1)
	target := startSite(t, n, siteAddress)
	c := startClient(t, startServer(t, n), n.Clients[0])
	d := startDownload(t, c, siteURL+"/stream?size=90000000")
	for i, to := range []struct{ access, verdict string }{{"cell", "protocol"}, {"wifi", "nat"}} {
		at := int64(i+1) * 30 * mega
		target.gate.set(at)
		d.reach(t, ctx, at-mega)
		n.Clients[0].Move(to.access, netns.Hard)
		t.Log(c.await(t, ctx, "connected in "+to.access, func(s status) bool {
			return s.State == "connected" && s.Path.Encapsulation == "udp" && s.Path.Verdict == to.verdict
		}))
	}
	target.gate.set(90 * mega)
	<-d.done
	if conns, sum := target.result(); d.err != nil || d.sum != sum || len(conns) != 1 {
		t.Errorf("download: %v, sum %s, want %s, by %d connections", d.err, d.sum, sum, len(conns))
	}
}
