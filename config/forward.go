package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A PortRule lets clients have ports of the server.
type PortRule struct {
	Network string // tcp or udp
	// Addr is the address; Any stands for all, and neither for the server's inner
	// addresses.
	Addr     netip.Addr
	Any      bool
	From, To uint16   // ports
	Users    []string // names of clients; none means all
}

// innerAddress is how the server's inner addresses are written.
const innerAddress = "inner"

// ParsePortRule reads a rule such as "tcp *:8000-8099 laptop phone".
func ParsePortRule(s string) (PortRule, error) {
	f := strings.Fields(s)
	if len(f) < 2 || f[0] != "tcp" && f[0] != "udp" {
		return PortRule{}, fmt.Errorf("%q is not of the form: tcp or udp, address and ports, names of clients", s)
	}
	r := PortRule{Network: f[0]}
	i := strings.LastIndexByte(f[1], ':')
	if i < 0 {
		return PortRule{}, fmt.Errorf("%q is not an address and ports", f[1])
	}
	address, ports := f[1][:i], f[1][i+1:]
	switch {
	case address == "*":
		r.Any = true
	case address == innerAddress:
	default:
		var err error
		bare := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		if r.Addr, err = netip.ParseAddr(bare); err != nil || r.Addr.Zone() != "" || r.Addr.Is6() != (bare != address) {
			return PortRule{}, fmt.Errorf("%q is not an address, %s or *", address, innerAddress)
		}
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || from == 0 || to < from {
		return PortRule{}, fmt.Errorf("%q is not a port or a range of ports", ports)
	}
	r.From, r.To = uint16(from), uint16(to)
	for _, name := range f[2:] {
		if err := CheckName(name); err != nil {
			return PortRule{}, fmt.Errorf("%q is not a client name", name)
		}
		r.Users = append(r.Users, name)
	}
	return r, nil
}

// String is what ParsePortRule reads.
func (r PortRule) String() string {
	address := innerAddress
	switch {
	case r.Any:
		address = "*"
	case r.Addr.Is6():
		address = "[" + r.Addr.String() + "]"
	case r.Addr.IsValid():
		address = r.Addr.String()
	}
	s := fmt.Sprintf("%s %s:%d", r.Network, address, r.From)
	if r.To != r.From {
		s += fmt.Sprintf("-%d", r.To)
	}
	return strings.Join(append([]string{s}, r.Users...), " ")
}

// AllowsPort tells whether one of rules lets a client have a port. An invalid
// address stands for the server's inner addresses.
func AllowsPort(rules []PortRule, user, network string, at netip.AddrPort) bool {
	return slices.ContainsFunc(rules, func(r PortRule) bool {
		return r.Network == network && at.Port() >= r.From && at.Port() <= r.To &&
			(r.Any && at.Addr().IsValid() || !r.Any && r.Addr == at.Addr()) &&
			(len(r.Users) == 0 || slices.Contains(r.Users, user))
	})
}
