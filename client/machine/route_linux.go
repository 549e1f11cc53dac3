package machine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// actNop is FR_ACT_NOP of linux/fib_rules.h: go on with the next rule.
const actNop = 3

func familyOf(family int) int {
	if family == 4 {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (r Rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family, n.Priority = familyOf(r.Family), r.Priority
	if r.Mark != 0 {
		all := uint32(1<<32 - 1)
		n.Mark, n.Mask = r.Mark, &all
	}
	if r.To.IsValid() {
		n.Dst = ipNet(r.To)
	}
	n.IPProto = r.Protocol
	if r.Port != 0 {
		n.Dport = netlink.NewRulePortRange(r.Port, r.Port)
	}
	switch {
	case r.Goto != 0:
		n.Goto = r.Goto
	case r.Table != 0:
		n.Table = r.Table
		if r.NoDefault {
			n.SuppressPrefixlen = 0
		}
	case r.Unreachable:
		n.Type = unix.RTN_UNREACHABLE // FR_ACT_UNREACHABLE is the same number
	default:
		n.Type = actNop
	}
	return n
}

func (r Rule) add() error {
	err := netlink.RuleAdd(r.netlink())
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: its kernel cannot route by rules (CONFIG_IP_MULTIPLE_TABLES): %w", ErrUnsupported, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("add a routing rule: %w", ErrNotPermitted)
	}
	return fmt.Errorf("add the routing rule %d of IPv%d: %w", r.Priority, r.Family, err)
}

func (r Rule) remove() error {
	err := netlink.RuleDel(r.netlink())
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return fmt.Errorf("remove the routing rule %d of IPv%d: %w", r.Priority, r.Family, err)
}

// addDefault leads what looks into a table to the device.
func addDefault(family, table int, device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find the device %s: %w", device, err)
	}
	all, source := netip.PrefixFrom(netip.IPv4Unspecified(), 0), Near4
	if family == 6 {
		all, source = netip.PrefixFrom(netip.IPv6Unspecified(), 0), Near6
	}
	err = netlink.RouteAdd(&netlink.Route{
		Family: familyOf(family), Table: table, Dst: ipNet(all), Src: source.AsSlice(), LinkIndex: link.Attrs().Index, Priority: 1,
	})
	if err != nil {
		return fmt.Errorf("add the default route of IPv%d to table %d: %w", family, table, err)
	}
	return nil
}

func (s Sysctl) path() string { return filepath.Join("/proc/sys", filepath.Clean("/"+s.Key)) }

func (s Sysctl) set() error {
	if err := os.WriteFile(s.path(), []byte(s.New), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", s.Key, s.New, err)
	}
	return nil
}

// reset puts the old value back, unless somebody has set another one since.
func (s Sysctl) reset() error {
	now, err := readSysctl(s.Key)
	if err != nil || now != s.New {
		return nil
	}
	return Sysctl{Key: s.Key, New: s.Old}.set()
}

func readSysctl(key string) (string, error) {
	b, err := os.ReadFile(Sysctl{Key: key}.path())
	return strings.TrimSpace(string(b)), err
}

// apply does what a plan says, in the order in which nothing is cut off that
// need not be.
func (p Plan) apply(device string) error {
	for _, family := range p.Families {
		if err := addDefault(family, p.Table, device); err != nil {
			return err
		}
	}
	for _, s := range p.Sysctls {
		if err := s.set(); err != nil {
			return err
		}
	}
	for _, r := range p.Rules {
		if err := r.add(); err != nil {
			return err
		}
	}
	return nil
}

// undo takes away what a plan has added. What is not there any more is no error.
func (p Plan) undo() error {
	var errs []error
	for i := len(p.Rules) - 1; i >= 0; i-- {
		errs = append(errs, p.Rules[i].remove())
	}
	for _, s := range p.Sysctls {
		errs = append(errs, s.reset())
	}
	return errors.Join(errs...)
}

// lookAround gathers facts. The table of a plan that is still there counts as
// free.
func lookAround(before *State) (Facts, error) {
	var f Facts
	seen := make(map[int]bool)
	for _, family := range []int{4, 6} {
		rules, err := netlink.RuleList(familyOf(family))
		switch {
		case errors.Is(err, unix.EAFNOSUPPORT) || family == 6 && !hasIPv6():
			continue // nothing can leave by it
		case errors.Is(err, unix.EOPNOTSUPP):
			return f, fmt.Errorf("%w: its kernel cannot route by rules (CONFIG_IP_MULTIPLE_TABLES): %w", ErrUnsupported, err)
		case err != nil:
			return f, fmt.Errorf("list the routing rules: %w", err)
		}
		f.Families = append(f.Families, family)
		for _, r := range rules {
			seen[r.Table] = true
		}
		err = netlink.RouteListFilteredIter(familyOf(family), &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			seen[r.Table] = true
			return true
		})
		if err != nil {
			return f, fmt.Errorf("list the routes: %w", err)
		}
	}
	if before != nil {
		delete(seen, before.Plan.Table)
	}
	for t := range seen {
		f.Tables = append(f.Tables, t)
	}
	f.ReverseFilter = make(map[string]string)
	entries, err := os.ReadDir("/proc/sys/net/ipv4/conf")
	if err != nil {
		return f, fmt.Errorf("look at the reverse path filter: %w", err)
	}
	for _, e := range entries {
		if v, err := readSysctl("net/ipv4/conf/" + e.Name() + "/rp_filter"); err == nil {
			f.ReverseFilter[e.Name()] = v
		}
	}
	return f, nil
}

// Led reports whether a process leads this machine through a tunnel, or has been
// killed while it did.
func Led() bool {
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	return err == nil && slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Mark == Mark })
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// setUpDevice gives the device its addresses and takes it up.
func setUpDevice(s Settings, families []int) error {
	link, err := netlink.LinkByName(s.Device)
	if err != nil {
		return fmt.Errorf("find the device %s: %w", s.Device, err)
	}
	if err := netlink.LinkSetMTU(link, s.MTU); err != nil {
		return fmt.Errorf("set the MTU of %s: %w", s.Device, err)
	}
	for _, family := range families {
		a := netlink.Addr{IPNet: ipNet(netip.PrefixFrom(Near4, 32))}
		if family == 6 {
			// On this device of our own, whatever holds for others.
			_ = Sysctl{Key: "net/ipv6/conf/" + s.Device + "/disable_ipv6", New: "0"}.set()
			a = netlink.Addr{IPNet: ipNet(netip.PrefixFrom(Near6, 128)), Flags: unix.IFA_F_NODAD}
		}
		if err := netlink.AddrReplace(link, &a); err != nil {
			return fmt.Errorf("give %s the address %s: %w", s.Device, a.IP, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("take %s up: %w", s.Device, err)
	}
	return nil
}
