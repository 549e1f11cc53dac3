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

// nat64Prefix and otherPrefix are networks' own: the Well-Known Prefix must not be used
// for addresses that are not global, as the laboratory's are.
const (
	nat64Prefix = "2001:db8:64::"
	otherPrefix = "2001:db8:66::"
)

// nameServer is where the name servers of all these networks are.
var nameServer = netip.MustParseAddr("fd00:53::53")

// translate gives an access network with IPv6 alone a NAT64, Debian's tayga, on its
// router, and name servers that tell of it.
func translate(t *testing.T, n *netns.Network, at int, prefix string) {
	t.Helper()
	a := n.Access[at]
	r := a.Router
	// The router has IPv4 outwards; nobody behind it does.
	core := netip.AddrFrom4([4]byte{203, 0, 113, byte(241 + 4*at)})
	n.Core.Address(a.Name, netip.PrefixFrom(core, 30))
	r.Address("up", netip.PrefixFrom(core.Next(), 30))
	r.Route(netip.MustParsePrefix("0.0.0.0/0"), core, "up", 0)
	dir := t.TempDir()
	conf := filepath.Join(dir, "tayga.conf")
	if err := os.WriteFile(conf, []byte(`
tun-device nat64
ipv4-addr 192.168.255.1
ipv6-addr 2001:db8:65::1
prefix `+prefix+`/96
dynamic-pool 192.168.255.0/24
data-dir `+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"tayga --mktun --config " + conf,
		"ip link set nat64 up",
		"ip route add 192.168.255.0/24 dev nat64",
		"ip -6 route add " + prefix + "/96 dev nat64",
	} {
		f := strings.Fields(line)
		if out, err := r.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	r.Start("tayga", "--nodetach", "--config", conf)

	r.Address("lo", netip.PrefixFrom(nameServer, 128))
	n.Clients[0].Resolver(nameServer)
	serveDNS64(t, r.ListenPacket("udp", net.JoinHostPort(nameServer.String(), "53")), netip.MustParseAddr(prefix))
}

// serveDNS64 answers for the name by which clients find NAT64 (RFC 7050), and knows no
// other, until the test ends.
func serveDNS64(t *testing.T, c net.PacketConn, prefix netip.Addr) {
	serveDNS(t, c, "ipv4only.arpa.", func(typ dnsmessage.Type) (known []dnsmessage.ResourceBody) {
		for _, last := range []byte{170, 171} {
			switch typ {
			case dnsmessage.TypeA:
				known = append(known, &dnsmessage.AResource{A: [4]byte{192, 0, 0, last}})
			case dnsmessage.TypeAAAA:
				a := prefix.As16()
				copy(a[12:], []byte{192, 0, 0, last})
				known = append(known, &dnsmessage.AAAAResource{AAAA: a})
			}
		}
		return known
	})
}

// The client has IPv6 alone and the link names an IPv4 address, which is reached through
// the network's NAT64.
func TestNAT64(t *testing.T) {
	t.Parallel()
	network{
		access:        netns.AccessConfig{Families: netns.IPv6, NAT: netns.KeepPorts, Delay: lan},
		before:        func(t *testing.T, n *netns.Network) { translate(t, n, 0, nat64Prefix) },
		encapsulation: "udp", verdict: "protocol", nat64: nat64Prefix + "/96",
	}.cross(t)
}

// A download goes on where IPv4 ends and NAT64 begins, where that has another prefix,
// and back.
func TestNAT64Moves(t *testing.T) {
	t.Parallel()
	ctx := within(t, 2*time.Minute)
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{
		{Name: "wifi", NAT: netns.KeepPorts, Delay: lan},
		{Name: "cell", Families: netns.IPv6, NAT: netns.KeepPorts, Delay: lan},
		{Name: "abroad", Families: netns.IPv6, NAT: netns.KeepPorts, Delay: lan},
	}})
	translate(t, n, 1, nat64Prefix)
	translate(t, n, 2, otherPrefix)
	target := startSite(t, n, siteAddress)
	c := startClient(t, startServer(t, n), n.Clients[0])
	d := startDownload(t, c, siteURL+"/stream?size=80000000")
	for i, to := range []struct{ access, verdict, remote string }{
		{"cell", "protocol", "[" + nat64Prefix}, {"abroad", "protocol", "[" + otherPrefix}, {"wifi", "nat", netns.ServerIPv4.String()},
	} {
		at := int64(i+1) * 20 * mega
		target.gate.set(at)
		d.reach(t, ctx, at-mega)
		n.Clients[0].Move(to.access, netns.Hard)
		t.Log(c.await(t, ctx, "connected in "+to.access, func(s status) bool {
			return s.State == "connected" && s.Path.Encapsulation == "udp" && s.Path.Verdict == to.verdict &&
				strings.HasPrefix(s.Path.Remote, to.remote)
		}))
	}
	target.gate.set(80 * mega)
	<-d.done
	if conns, sum := target.result(); d.err != nil || d.sum != sum || len(conns) != 1 {
		t.Errorf("download: %v, sum %s, want %s, by %d connections", d.err, d.sum, sum, len(conns))
	}
}
