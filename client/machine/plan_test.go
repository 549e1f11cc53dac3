package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// A packet is what rules look at.
type testPacket struct {
	mark     uint32
	to       string
	protocol int
	port     uint16
	bound    bool // to an interface that is not the device
}

// way follows the rules of a plan as the kernel would: the answer is device, main,
// or outside for what goes as it would without the plan. connected is what the
// table main has besides default routes.
func (p Plan) way(t *testing.T, k testPacket, connected ...netip.Prefix) string {
	t.Helper()
	to := netip.MustParseAddr(k.to)
	family := 4
	if to.Is6() {
		family = 6
	}
	var rules []Rule
	for _, r := range p.Rules {
		if r.Family == family {
			rules = append(rules, r)
		}
	}
	slices.SortFunc(rules, func(a, b Rule) int { return a.Priority - b.Priority })
	at := 0
	for _, r := range rules {
		if r.Priority < at || r.Mark != 0 && r.Mark != k.mark || r.To.IsValid() && !r.To.Contains(to) ||
			r.Protocol != 0 && r.Protocol != k.protocol || r.Port != 0 && r.Port != k.port {
			continue
		}
		switch {
		case r.Goto != 0:
			if r.Goto <= r.Priority || !slices.ContainsFunc(rules, func(o Rule) bool { return o.Priority == r.Goto }) {
				t.Errorf("rule %+v leads to no later rule", r)
			}
			at = r.Goto
		case r.Unreachable:
			return "refused"
		case r.Table == p.Table:
			if k.bound {
				continue // the route there leads to another interface
			}
			return "device"
		case r.Table == mainTable && r.NoDefault:
			if slices.ContainsFunc(connected, func(c netip.Prefix) bool { return c.Contains(to) }) {
				return "main"
			}
		case r.Table != 0:
			t.Errorf("rule %+v looks up a table that nobody knows", r)
		}
	}
	return "outside"
}

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, s := range s {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestPlanLeads(t *testing.T) {
	both := Facts{Families: []int{4, 6}}
	lan := prefixes("192.168.1.0/24", "fd00:1::/64", "203.0.113.0/24", "0.0.0.0/1", "2000::/3") // some that a hostile network has told of
	for _, tt := range []struct {
		name string
		s    Settings
		want map[testPacket]string
	}{
		{"all", Settings{}, map[testPacket]string{
			{to: "192.0.2.1", protocol: protocolTCP, port: 443}:   "device",
			{to: "2001:db8::1", protocol: protocolUDP, port: 443}: "device",
			{to: "203.0.113.9"}: "device", // a route of the network draws nothing out
			{to: "2001:db8::9"}: "device",
			{to: "192.168.1.7"}: "main",
			{to: "192.168.2.7"}: "device", // no network of ours
			{to: "fd00:1::7"}:   "main",
			{to: "192.168.1.1", protocol: protocolUDP, port: portDNS}:  "device",
			{to: "fd00:1::1", protocol: protocolTCP, port: portDNS}:    "device",
			{to: "192.168.1.1", protocol: protocolUDP, port: portDHCP}: "outside",
			{to: "fe80::1"}: "outside",
			{to: "fd00:1::1", protocol: protocolUDP, port: portDHCPv6}:   "outside",
			{mark: Mark, to: "192.0.2.1"}:                                "outside",
			{mark: Mark, to: "2001:db8::1"}:                              "outside",
			{mark: Mark, to: "9.9.9.9", protocol: 17, port: portDNS}:     "outside",
			{mark: 7, to: "192.0.2.1"}:                                   "device",
			{to: Far4.String(), protocol: protocolUDP, port: portDNS}:    "device",
			{to: "198.51.100.1", protocol: protocolTCP, port: portDHCP}:  "device",
			{to: "2001:db8::2", protocol: protocolTCP, port: portDHCPv6}: "device",
		}},
		{"without the local network", Settings{NoLAN: true}, map[testPacket]string{
			{to: "192.168.1.7"}: "device",
			{to: "fd00:1::7"}:   "device",
			{to: "fe80::7"}:     "outside",
			{to: "192.168.1.1", protocol: protocolUDP, port: portDHCP}: "outside",
		}},
		{"some", Settings{Include: prefixes("192.0.2.0/24", "2001:db8::/32"), Exclude: prefixes("192.0.2.128/25", "9.9.9.9/32")}, map[testPacket]string{
			{to: "192.0.2.1"}:    "device",
			{to: "192.0.2.200"}:  "outside",
			{to: "198.51.100.1"}: "outside",
			{to: "2001:db8::1"}:  "device",
			{to: "2001:db9::1"}:  "outside",
			{to: "1.1.1.1", protocol: protocolUDP, port: portDNS}: "device",
			{to: "9.9.9.9", protocol: protocolUDP, port: portDNS}: "outside",
			{to: Far4.String()}: "device",
		}},
		{"kill switch", Settings{KillSwitch: true}, map[testPacket]string{
			{to: "192.0.2.1"}:                                        "device",
			{to: "192.0.2.1", bound: true}:                           "refused",
			{to: "2001:db8::1", bound: true}:                         "refused",
			{to: "192.168.1.7", bound: true}:                         "main",
			{to: "192.168.1.1", protocol: 17, port: 53, bound: true}: "refused",
			{to: "192.0.2.1", mark: Mark, bound: true}:               "outside",
		}},
		{"kill switch for some", Settings{KillSwitch: true, Include: prefixes("192.0.2.0/24")}, map[testPacket]string{
			{to: "192.0.2.1", bound: true}:    "refused",
			{to: "198.51.100.1", bound: true}: "outside",
		}},
		{"names left alone", Settings{NoDNS: true}, map[testPacket]string{
			{to: "192.168.1.1", protocol: protocolUDP, port: portDNS}: "main",
			{to: "9.9.9.9", protocol: protocolUDP, port: portDNS}:     "device",
		}},
	} {
		p, err := MakePlan(tt.s, both)
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range tt.want {
			if got := p.way(t, k, lan...); got != want {
				t.Errorf("%s: %+v goes to %s, want %s", tt.name, k, got, want)
			}
		}
	}
}

func TestPlanOfFacts(t *testing.T) {
	p, err := MakePlan(Settings{Device: "d", KillSwitch: true}, Facts{
		Families: []int{4}, Tables: []int{firstTable, firstTable + 1, 254},
		ReverseFilter: map[string]string{"all": "0", "eth0": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.Table != firstTable+2 || !slices.Equal(p.Families, []int{4}) {
		t.Errorf("table %d, versions %v", p.Table, p.Families)
	}
	if len(p.Sysctls) != 1 || p.Sysctls[0] != (Sysctl{"net/ipv4/conf/all/rp_filter", "0", "2"}) {
		t.Errorf("parameters %+v", p.Sysctls)
	}
	if slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Family != 4 }) {
		t.Error("rules of IPv6, which the kernel does not have")
	}
	p, err = MakePlan(Settings{Device: "d"}, Facts{Families: []int{4, 6}, ReverseFilter: map[string]string{"all": "2", "eth0": "0"}})
	if err != nil || len(p.Sysctls) > 0 {
		t.Errorf("without a kill switch, with a loose filter: %+v, %v", p, err)
	}
	var all []int
	for i := range tablesTried + 1 {
		all = append(all, firstTable+i)
	}
	if _, err := MakePlan(Settings{}, Facts{Families: []int{4}, Tables: all}); err == nil || !strings.Contains(err.Error(), "all in use") {
		t.Errorf("without a free table: %v", err)
	}
	var many []netip.Prefix
	for i := range mostRules {
		many = append(many, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)))
	}
	if _, err := MakePlan(Settings{Exclude: many}, Facts{Families: []int{4}}); err == nil {
		t.Error("any number of targets is taken")
	}
}
