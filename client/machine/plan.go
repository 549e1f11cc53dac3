package machine

import (
	"fmt"
	"net/netip"
	"slices"
)

// Where our rules begin, and the first table that is tried: below every rule that
// systems make by themselves (32766 and 32767), above none but that for local
// addresses (0) and what else a user has put there on purpose.
const (
	firstPriority = 10800
	mostRules     = 4000 // of one family
	mainTable     = 254
	firstTable    = 1080
	tablesTried   = 64
)

// The targets that count as local: private, link-local and multicast (RFC 1918,
// 3927, 5771, 4193, 4291). Whatever a network tells us by DHCP, no route of its
// own can draw other targets out of the tunnel.
var lanRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("ff00::/8"),
}

// linkLocal is what IPv6 does not work without.
var linkLocal = netip.MustParsePrefix("fe80::/10")

// IP protocols and ports of services.
const (
	protocolTCP = 6
	protocolUDP = 17
	portDNS     = 53
	portDHCP    = 67  // RFC 2131, Section 4.1
	portDHCPv6  = 547 // RFC 8415, Section 7.2
)

// A Rule is one of ip-rule(8). Zero fields match everything. What a rule does is
// to look up Table, to go on at the rule with priority Goto, to refuse, or nothing.
type Rule struct {
	Family   int          `json:"family"` // 4 or 6
	Priority int          `json:"priority"`
	Mark     uint32       `json:"mark,omitempty"`
	To       netip.Prefix `json:"to,omitzero"`
	Protocol int          `json:"protocol,omitempty"`
	Port     uint16       `json:"port,omitempty"` // destination

	Table int `json:"table,omitempty"`
	// NoDefault has the table's default routes not count.
	NoDefault   bool `json:"no_default,omitempty"`
	Goto        int  `json:"goto,omitempty"`
	Unreachable bool `json:"unreachable,omitempty"`
}

// A Sysctl is a kernel parameter below /proc/sys/, such as
// net/ipv4/conf/all/rp_filter.
type Sysctl struct {
	Key string `json:"key"`
	Old string `json:"old"`
	New string `json:"new"`
}

// Facts are what a plan is made from.
type Facts struct {
	// Families are the IP versions that the kernel has: 4, 6.
	Families []int
	// Tables are the routing tables that have routes or that rules name.
	Tables []int
	// ReverseFilter is net.ipv4.conf.*.rp_filter, by interface, "all" included.
	ReverseFilter map[string]string
}

// A Plan is what is changed of the machine's routing. The undoing of a plan is
// its parts taken away from the last to the first.
type Plan struct {
	// Table is of our own. In it is a default route to the device for each of
	// Families; those end with the device, and so with the process.
	Table    int      `json:"table"`
	Families []int    `json:"families"`
	Sysctls  []Sysctl `json:"sysctls"`
	Rules    []Rule   `json:"rules"`
}

// MakePlan decides what has to be changed.
//
// The tunnel's own packets have a mark, and the first rule has them pass by all
// others of the plan: they go as they would without it, whatever becomes of the
// machine's routes, so a move is no concern of the plan.
func MakePlan(s Settings, f Facts) (Plan, error) {
	var p Plan
	for p.Table = firstTable; slices.Contains(f.Tables, p.Table); p.Table++ {
		if p.Table == firstTable+tablesTried {
			return Plan{}, fmt.Errorf("the routing tables %d to %d are all in use", firstTable, p.Table)
		}
	}
	p.Families = f.Families
	for _, family := range f.Families {
		rules := familyRules(s, family, p.Table)
		if len(rules) > mostRules {
			return Plan{}, fmt.Errorf("%d targets included and excluded are too many", len(s.Include)+len(s.Exclude))
		}
		p.Rules = append(p.Rules, rules...)
	}
	// A strict reverse path filter (RFC 3704, Section 2.2) would drop what the
	// server sends, as unmarked packets to it would leave by the device. The
	// larger of an interface's value and that for all counts; 2 is loose.
	for _, v := range f.ReverseFilter {
		if v == "1" {
			p.Sysctls = []Sysctl{{Key: "net/ipv4/conf/all/rp_filter", Old: f.ReverseFilter["all"], New: "2"}}
			break
		}
	}
	return p, nil
}

func familyRules(s Settings, family, table int) []Rule {
	var rules []Rule
	add := func(r Rule) {
		if r.To.IsValid() && (r.To.Addr().Is4() != (family == 4)) {
			return
		}
		r.Family, r.Priority = family, firstPriority+len(rules)
		rules = append(rules, r)
	}
	// lead has packets go to the device. With the kill switch those are refused
	// that cannot, as there is none, or as they are bound to another interface
	// (an unreachable route would not do: IPv6 passes over it for these).
	lead := func(r Rule) {
		to := r
		to.Table = table
		add(to)
		if s.KillSwitch {
			r.Unreachable = true
			add(r)
		}
	}
	// Where the rules of the machine go on. It stands first in the list, as
	// whoever jumps there needs it.
	const past = firstPriority + mostRules
	rules = append(rules, Rule{Family: family, Priority: past})
	add(Rule{Mark: Mark, Goto: past})
	for _, to := range s.Exclude {
		add(Rule{To: to, Goto: past})
	}
	far := netip.PrefixFrom(Far4, 32)
	if family == 4 {
		add(Rule{Protocol: protocolUDP, Port: portDHCP, Goto: past})
	} else {
		add(Rule{Protocol: protocolUDP, Port: portDHCPv6, Goto: past})
		add(Rule{To: linkLocal, Goto: past})
		far = netip.PrefixFrom(Far6, 128)
	}
	if !s.NoDNS {
		// Also to a name server of the local network, whoever named it.
		lead(Rule{Protocol: protocolUDP, Port: portDNS})
		lead(Rule{Protocol: protocolTCP, Port: portDNS})
	}
	lead(Rule{To: far})
	if !s.NoLAN {
		for _, to := range lanRanges {
			add(Rule{To: to, Table: mainTable, NoDefault: true})
		}
	}
	if len(s.Include) == 0 {
		lead(Rule{})
	}
	for _, to := range s.Include {
		lead(Rule{To: to})
	}
	return rules
}
