// Package egress is what leaves the server: which addresses its clients may
// reach, how a name becomes a connection, and the SOCKS5 service (RFC 1928)
// that clients ask from inside the tunnel.
//
// # Limitations
//
// Of SOCKS5 only CONNECT is served. The server's own addresses as the outside
// sees them are not known to it when it sits behind a translation.
package egress

import (
	"fmt"
	"net"
	"net/netip"
)

// A Policy says which addresses may be reached. The zero Policy denies what is
// of this host, of its networks, or of nobody, and lets everything else pass.
type Policy struct {
	// Allow opens ranges that are denied otherwise. An IPv4 range opens its
	// addresses in IPv6 clothes (mapped, NAT64, 6to4) too.
	Allow []netip.Prefix
	// Also gives more such ranges, which may change. It is called at each check
	// and may be nil.
	Also func() []netip.Prefix
	// Own gives the server's own addresses, which are denied as loopback is;
	// HostAddresses does for most. It is called at each check and may be nil.
	Own func() []netip.Addr
}

// A DeniedError says why the policy denies an address. It matches
// ErrNotAllowed.
type DeniedError struct {
	Addr   netip.Addr
	Reason string
}

// Error names the address and the reason.
func (e *DeniedError) Error() string { return fmt.Sprintf("%v is denied: %s", e.Addr, e.Reason) }

// Unwrap gives ErrNotAllowed.
func (e *DeniedError) Unwrap() error { return ErrNotAllowed }

// denied are the ranges that nobody reaches through somebody else's server, by
// the special-purpose registries of RFC 6890. Documentation (RFC 5737) and
// benchmark (RFC 2544) ranges are not among them: they lead nowhere, except in
// test networks, where they should work.
var denied = []struct {
	prefix netip.Prefix
	reason string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},            // RFC 791
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},              // RFC 1122
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},                // RFC 1918
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},             // RFC 1918
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},            // RFC 1918
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by a carrier"}, // RFC 6598
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},         // RFC 3927; cloud metadata
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments"}, // RFC 6890
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},             // RFC 5771
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast"}, // RFC 1112, RFC 919

	{netip.MustParsePrefix("::/128"), "unspecified"},         // RFC 4291
	{netip.MustParsePrefix("::1/128"), "loopback"},           // RFC 4291
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"}, // RFC 8215
	{netip.MustParsePrefix("fc00::/7"), "private"},           // RFC 4193; cloud metadata fd00:ec2::254
	{netip.MustParsePrefix("fe80::/10"), "link-local"},       // RFC 4291
	{netip.MustParsePrefix("fec0::/10"), "site-local"},       // RFC 3879
	{netip.MustParsePrefix("ff00::/8"), "multicast"},         // RFC 4291
}

var (
	compatible = netip.MustParsePrefix("::/96")        // RFC 4291, Section 2.5.5.1
	nat64      = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour  = netip.MustParsePrefix("2002::/16")    // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")    // RFC 4380
)

// embedded finds the IPv4 address that a network on the way would make of an
// IPv6 address.
func embedded(a netip.Addr) (v4 netip.Addr, ok bool) {
	b := a.As16()
	switch {
	case !a.Is6():
		return netip.Addr{}, false
	case compatible.Contains(a), nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredo.Contains(a):
		// The client's address is written inverted, RFC 4380, Section 4.
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}

// Check gives nil if addr may be reached and a *DeniedError if not.
func (p Policy) Check(addr netip.Addr) error {
	if !addr.IsValid() {
		return &DeniedError{addr, "no address"}
	}
	// A zone picks an interface and must not hide a range.
	a := addr.Unmap().WithZone("")
	v4, inside := embedded(a)
	if p.allows(a) || inside && p.allows(v4) {
		return nil
	}
	if reason := p.reason(a); reason != "" {
		return &DeniedError{addr, reason}
	}
	if inside {
		if reason := p.reason(v4); reason != "" {
			return &DeniedError{addr, fmt.Sprintf("leads to %v, %s", v4, reason)}
		}
	}
	return nil
}

func (p Policy) allows(a netip.Addr) bool {
	return opens(p.Allow, a) || p.Also != nil && opens(p.Also(), a)
}

// opens tells whether one of ranges holds a.
func opens(ranges []netip.Prefix, a netip.Addr) bool {
	for _, r := range ranges {
		if r.Addr().Is4In6() && r.Bits() >= 96 {
			r = netip.PrefixFrom(r.Addr().Unmap(), r.Bits()-96)
		}
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// reason gives why a is denied, empty if it is not.
func (p Policy) reason(a netip.Addr) string {
	for _, d := range denied {
		if d.prefix.Contains(a) {
			return d.reason
		}
	}
	if p.Own != nil {
		for _, own := range p.Own() {
			if own.Unmap().WithZone("") == a {
				return "the server itself"
			}
		}
	}
	return ""
}

// HostAddresses gives the addresses of this host's interfaces, for Policy.Own;
// none if the system does not tell.
func HostAddresses() []netip.Addr {
	var found []netip.Addr
	as, _ := net.InterfaceAddrs()
	for _, a := range as {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			found = append(found, p.Addr().Unmap())
		}
	}
	return found
}
