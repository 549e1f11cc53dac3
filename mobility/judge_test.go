package mobility

import (
	"net/netip"
	"testing"

	"github.com/godwit-net/godwit/transports"
)

func desc(source, destination string) (d transports.Description) {
	if source != "" {
		d.Source = netip.MustParseAddrPort(source)
	}
	if destination != "" {
		d.Destination = netip.MustParseAddrPort(destination)
	}
	return d
}

func TestJudge(t *testing.T) {
	const client, server = "10.0.0.2:4500", "198.51.100.1:443"
	http := desc(client, server)
	http.Authority, http.Path, http.CertHash = "a.example", "/x", [32]byte{1}
	change := func(f func(d *transports.Description)) transports.Description {
		d := http
		f(&d)
		return d
	}
	for _, tt := range []struct {
		name       string
		sent, seen transports.Description
		want       Verdict
	}{
		{"all equal", desc(client, server), desc(client, server), None},
		{"IPv4 as the server's IPv6 socket shows it", desc(client, server), desc("[::ffff:10.0.0.2]:4500", "[::ffff:198.51.100.1]:443"), None},
		{"link-local with a zone", desc("[fe80::1%eth0]:1", "[fe80::2%eth0]:2"), desc("[fe80::1%3]:1", "[fe80::2]:2"), None},
		{"address differs, port same", desc(client, server), desc("203.0.113.9:4500", server), NAT},
		{"port differs too", desc(client, server), desc("203.0.113.9:61001", server), NAPT},
		{"port alone differs", desc(client, server), desc("10.0.0.2:61001", server), NAPT},
		{"destination address differs", desc(client, server), desc(client, "192.168.1.5:443"), Destination},
		{"destination port differs", desc(client, server), desc(client, "198.51.100.1:8443"), Destination},
		{"destination and source differ", desc(client, server), desc("203.0.113.9:61001", "192.168.1.5:443"), Destination},
		{"NAT64", desc("[2001:db8::2]:4500", "[64:ff9b::c633:6401]:443"), desc("203.0.113.9:4500", server), Protocol},
		{"protocol outweighs destination", desc("[2001:db8::2]:4500", server), desc("203.0.113.9:4500", "192.168.1.5:1"), Protocol},
		{"server's socket knows no address", desc(client, server), desc(client, "[::]:443"), None},
		{"but a port", desc(client, server), desc(client, "0.0.0.0:8443"), Destination},
		{"server knows no destination", desc(client, server), desc("203.0.113.9:4500", ""), NAT},
		{"client knows no source", desc("", server), desc("203.0.113.9:4500", server), None},
		{"client's socket knows no address", desc("0.0.0.0:4500", server), desc("203.0.113.9:4500", server), None},
		{"ESP has no ports", desc("10.0.0.2:0", "198.51.100.1:0"), desc("10.0.0.2:0", "198.51.100.1:0"), None},
		{"HTTP unchanged", http, http, None},
		{"through a proxy that changes nothing", change(func(d *transports.Description) { d.Proxy = "p:3128" }), http, Intermediary},
		{"another certificate", http, change(func(d *transports.Description) { d.CertHash[0] = 2 }), Intermediary},
		{"TLS ended on the way", http, change(func(d *transports.Description) { d.CertHash = [32]byte{} }), Intermediary},
		{"another Host", http, change(func(d *transports.Description) { d.Authority = "backend" }), Intermediary},
		{"another path", http, change(func(d *transports.Description) { d.Path = "/y" }), Intermediary},
		{"Host not known", http, change(func(d *transports.Description) { d.Authority, d.Path = "", "" }), None},
		{"intermediary outweighs all", http, change(func(d *transports.Description) {
			d.Path, d.Source = "/y", netip.MustParseAddrPort("[2001:db8::9]:1")
		}), Intermediary},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Judge(tt.sent, tt.seen); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestVerdictWords(t *testing.T) {
	for v, want := range map[Verdict]string{None: "none", NAT: "nat", NAPT: "napt", Destination: "destination", Protocol: "protocol", Intermediary: "intermediary", 99: "verdict(99)"} {
		if v.String() != want {
			t.Errorf("got %v, want %s", v, want)
		}
	}
}
