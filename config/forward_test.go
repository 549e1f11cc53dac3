package config

import (
	"net/netip"
	"testing"
)

func TestPortRules(t *testing.T) {
	for _, good := range []string{"tcp *:8000-8099", "udp [2001:db8::1]:53 laptop phone", "tcp inner:80", "tcp 192.0.2.1:1-65535 a", "udp [::]:53"} {
		if r, err := ParsePortRule(good); err != nil || r.String() != good {
			t.Errorf("%q: %v, %v", good, r, err)
		}
	}
	for _, bad := range []string{"", "tcp", "sctp *:1", "tcp *", "tcp *:0", "tcp *:2-1", "tcp *:1-70000", "tcp *:1-", "tcp *:x", "tcp ::1:1",
		"tcp [192.0.2.1]:1", "tcp example.org:1", "tcp [fe80::1%eth0]:1", "tcp *:1 a/b"} {
		if r, err := ParsePortRule(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, r)
		}
	}
}

// Nothing is allowed that no rule names.
func TestAllowsPort(t *testing.T) {
	var rules []PortRule
	for _, s := range []string{"tcp *:8000-8099", "tcp 192.0.2.1:22 laptop", "udp inner:53 laptop"} {
		r, err := ParsePortRule(s)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	for _, tt := range []struct {
		user, network, at string
		want              bool
	}{
		{"phone", "tcp", "0.0.0.0:8000", true},
		{"phone", "tcp", "[::]:8099", true},
		{"phone", "tcp", "[::]:8100", false},
		{"phone", "tcp", "[::]:7999", false},
		{"phone", "udp", "[::]:8000", false},
		{"phone", "tcp", "inner:8000", false}, // * is what is outside
		{"laptop", "tcp", "192.0.2.1:22", true},
		{"phone", "tcp", "192.0.2.1:22", false},
		{"laptop", "tcp", "192.0.2.2:22", false},
		{"laptop", "udp", "inner:53", true},
		{"laptop", "udp", "[::]:53", false},
	} {
		var at netip.AddrPort
		switch tt.at {
		case "inner:8000":
			at = netip.AddrPortFrom(netip.Addr{}, 8000)
		case "inner:53":
			at = netip.AddrPortFrom(netip.Addr{}, 53)
		default:
			at = netip.MustParseAddrPort(tt.at)
		}
		if got := AllowsPort(rules, tt.user, tt.network, at); got != tt.want {
			t.Errorf("%s, %s %s: %v", tt.user, tt.network, tt.at, got)
		}
		if AllowsPort(nil, tt.user, tt.network, at) {
			t.Errorf("without rules: %s, %s %s", tt.user, tt.network, tt.at)
		}
	}
}
