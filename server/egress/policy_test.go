package egress

import (
	"errors"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPolicy(t *testing.T) {
	own := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}
	}
	deny := Policy{Own: own}
	for _, tt := range []struct {
		addr    string
		allowed bool
	}{
		{"8.8.8.8", true}, {"1.1.1.1", true}, {"2606:4700::1111", true},
		{"172.15.255.255", true}, {"172.32.0.0", true}, {"100.63.255.255", true}, {"100.128.0.0", true},
		{"169.253.255.255", true}, {"192.167.255.255", true}, {"223.255.255.255", true}, {"192.0.1.0", true},
		{"192.0.2.1", true}, {"198.51.100.7", true}, {"203.0.113.2", true}, {"198.18.0.1", true}, // test networks
		{"2001:db8::2", true}, {"64:ff9b::8.8.8.8", true}, {"2002:808:808::1", true},

		{"127.0.0.1", false}, {"127.255.255.254", false}, {"::1", false},
		{"10.1.2.3", false}, {"172.16.0.1", false}, {"172.31.255.255", false}, {"192.168.1.1", false},
		{"100.64.0.1", false}, {"100.127.255.255", false},
		{"169.254.169.254", false}, {"fd00:ec2::254", false}, {"fe80::1", false}, {"fe80::1%eth0", false}, {"febf::1", false},
		{"0.0.0.0", false}, {"0.1.2.3", false}, {"::", false},
		{"224.0.0.1", false}, {"239.255.255.255", false}, {"255.255.255.255", false}, {"240.0.0.1", false}, {"ff02::1", false},
		{"fc00::1", false}, {"fdff::1", false}, {"fec0::1", false}, {"192.0.0.8", false},
		// IPv4 in other clothes
		{"::ffff:127.0.0.1", false}, {"::ffff:10.0.0.1", false}, {"::ffff:8.8.8.8", true},
		{"::7f00:1", false}, {"::10.0.0.1", false},
		{"64:ff9b::127.0.0.1", false}, {"64:ff9b::a9fe:a9fe", false}, {"64:ff9b:1::8.8.8.8", false},
		{"2002:7f00:1::", false}, {"2002:c0a8:101::5", false},
		{"2001:0:0:0:0:0:f5ff:fffe", false}, // Teredo of 10.0.0.1
		// the server
		{"203.0.113.1", false}, {"::ffff:203.0.113.1", false}, {"64:ff9b::203.0.113.1", false}, {"2001:db8::1", false}, {"2001:db8::1%eth0", false},
	} {
		err := deny.Check(netip.MustParseAddr(tt.addr))
		if (err == nil) != tt.allowed {
			t.Errorf("%s: %v, want allowed %v", tt.addr, err, tt.allowed)
		}
		var de *DeniedError
		if err != nil && (!errors.Is(err, ErrNotAllowed) || !errors.As(err, &de) || de.Reason == "") {
			t.Errorf("%s: %v is no DeniedError", tt.addr, err)
		}
	}
	if err := (Policy{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}).Check(netip.Addr{}); err == nil {
		t.Error("no address is allowed")
	}

	open := Policy{Own: own, Allow: []netip.Prefix{
		netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("203.0.113.1/32"), netip.MustParsePrefix("fd00:5::/32"),
		netip.MustParsePrefix("::ffff:192.168.7.0/120"), {},
	}}
	for addr, allowed := range map[string]bool{
		"10.5.1.2": true, "::ffff:10.5.1.2": true, "64:ff9b::10.5.1.2": true, "2002:a05:102::": true, "10.6.0.1": false,
		"203.0.113.1": true, "2001:db8::1": false, "fd00:5::9": true, "fd00:6::9": false,
		"192.168.7.9": true, "192.168.8.9": false, "127.0.0.1": false,
	} {
		if err := open.Check(netip.MustParseAddr(addr)); (err == nil) != allowed {
			t.Errorf("with Allow %s: %v, want allowed %v", addr, err, allowed)
		}
	}
}

func TestHostAddresses(t *testing.T) {
	p := Policy{Own: HostAddresses, Allow: nil}
	found := HostAddresses()
	if len(found) == 0 {
		t.Fatal("the host has no address")
	}
	for _, a := range found {
		if err := p.Check(a); err == nil {
			t.Errorf("%v is the host's and allowed", a)
		}
	}
}
