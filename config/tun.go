package config

import (
	"net/netip"
	"strconv"
	"strings"
)

// A Tun is what client.toml says of leading the whole machine through the tunnel;
// its keys are tun, kill_switch and those that begin with tun_.
type Tun struct {
	Enabled bool
	// Device is the name of the TUN device, DefaultTunDevice by default.
	Device string
	// MTU is the device's, in bytes; 0 stands for what suits the tunnel.
	MTU int
	// Include are the targets that go through the tunnel; none means all.
	Include []netip.Prefix
	// Exclude are targets that do not.
	Exclude []netip.Prefix
	// NoLAN, the key tun_lan turned round, leads private addresses of the local
	// networks into the tunnel too.
	NoLAN bool
	// NoDNS leaves names alone; Resolver is who is asked through the tunnel, the
	// server if it is not valid.
	NoDNS    bool
	Resolver netip.Addr
	// KillSwitch keeps the machine closed where there is no tunnel.
	KillSwitch bool
}

// DefaultTunDevice is the name of the TUN device.
const DefaultTunDevice = "godwit0"

// tun reads the keys of a Tun.
func (t *table) tun() (n Tun) {
	n.Enabled = t.flag("tun", false)
	n.KillSwitch = t.flag("kill_switch", false)
	n.Include = t.ranges("tun_include")
	n.Exclude = t.ranges("tun_exclude")
	n.NoLAN = !t.flag("tun_lan", true)
	switch s := t.text("tun_dns", "server"); s {
	case "", "server":
	case "off":
		n.NoDNS = true
	default:
		a, err := netip.ParseAddr(s)
		if n.Resolver = a.Unmap(); err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() {
			t.fail("tun_dns", strconv.Quote(s)+" is no name server that can be asked through the tunnel", `write "server", "off" or an address such as "9.9.9.9"`)
		}
	}
	n.Device = t.text("tun_device", DefaultTunDevice)
	if n.Device == "" {
		n.Device = DefaultTunDevice
	}
	// The kernel's own rule: IFNAMSIZ, and no part of a path.
	if len(n.Device) > 15 || strings.Trim(n.Device, nameCharacters) != "" {
		t.fail("tun_device", strconv.Quote(n.Device)+" is not the name of a device", `write up to 15 letters and digits, such as "godwit0"`)
	}
	n.MTU = t.number("tun_mtu", 1280, 65535)
	return n
}

// ranges reads a list of ranges and addresses.
func (t *table) ranges(key string) (ps []netip.Prefix) {
	list, _ := t.list(key, "192.0.2.0/24")
	for _, s := range list {
		p, err := ParseAllow(s)
		if err != nil {
			t.fail(key, err.Error(), `write a range such as "192.0.2.0/24"`)
		}
		ps = append(ps, p)
	}
	return ps
}

// number reads a whole number, in quotes or without; an absent key gives 0.
func (t *table) number(key string, least, most int64) int {
	v, ok := t.take(key, Text)
	if !ok {
		return 0
	}
	n, isNumber := v.(int64)
	if s, isText := v.(string); isText {
		var err error
		n, err = strconv.ParseInt(s, 10, 64)
		isNumber = err == nil
	}
	if !isNumber || n < least || n > most {
		t.fail(key, "not a whole number from "+strconv.FormatInt(least, 10)+" to "+strconv.FormatInt(most, 10), "write it as "+key+" = "+strconv.FormatInt(least, 10))
		return 0
	}
	return int(n)
}
