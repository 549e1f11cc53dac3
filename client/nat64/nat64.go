// Package nat64 finds how IPv4 addresses are reached from a network that has IPv6
// alone: a translator there stands for all of IPv4 below an IPv6 prefix (RFC 6052),
// which the network's name servers show by their answers for one name (RFC 7050).
//
// It opens no sockets; whoever uses it looks the name up.
//
// # Limitations
//
// Prefixes that routers announce (RFC 8781) are not read: hearing them takes rights
// that a client seldom has. So a network's own name servers have to be in use. Answers
// are not validated by DNSSEC (RFC 7050, Section 3.1); who forges one sees sealed
// packets, as anybody on the way does.
package nat64

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Name has IPv4 addresses alone, so name servers that give IPv6 ones have made them
// from a prefix (RFC 7050, Section 3). It is absolute: no search list applies.
const Name = "ipv4only.arpa."

// ErrNone is matched when a network's name servers tell of no prefix.
var ErrNone = errors.New("this network's name servers tell of no NAT64")

// addresses are those of Name, the Well-Known IPv4 Addresses (RFC 7050, Section 2.2).
var addresses = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 170}), netip.AddrFrom4([4]byte{192, 0, 0, 171})}

// lengths are those that prefixes may have, in bits (RFC 6052, Section 2.2).
var lengths = []int{32, 40, 48, 56, 64, 96}

// maxPrefixes bounds what is believed of one answer.
const maxPrefixes = 4

// wellKnown is the prefix of all who have none of their own (RFC 6052, Section 2.1).
var wellKnown = netip.MustParsePrefix("64:ff9b::/96")

// special are ranges that are not global (RFC 5735, Section 3, and RFC 6598).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

// Discover asks lookup for Name and gives the prefixes that the answer shows. The error
// matches ErrNone if there are none, or is lookup's.
func Discover(ctx context.Context, lookup func(ctx context.Context, host string) ([]netip.Addr, error)) ([]netip.Prefix, error) {
	found, err := lookup(ctx, Name)
	if err != nil {
		return nil, fmt.Errorf("look for NAT64: %w", err)
	}
	prefixes := Prefixes(found)
	if len(prefixes) == 0 {
		return nil, ErrNone
	}
	return prefixes, nil
}

// Prefixes gives the prefixes, four at most, that the addresses of Name show, in the
// order of the answer. One that fits several lengths counts only where both
// addresses of Name agree on it.
func Prefixes(answer []netip.Addr) (prefixes []netip.Prefix) {
	for _, a := range answer {
		var fits []netip.Prefix
		for _, bits := range lengths {
			p, v4, ok := split(a, bits)
			if ok && slices.Contains(addresses, v4) {
				fits = append(fits, p)
			}
		}
		for _, p := range fits {
			if len(fits) > 1 && !all(answer, p) || slices.Contains(prefixes, p) || len(prefixes) == maxPrefixes {
				continue
			}
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// all holds if an answer has every address of Name below p.
func all(answer []netip.Addr, p netip.Prefix) bool {
	return !slices.ContainsFunc(addresses, func(v4 netip.Addr) bool {
		a, ok := embed(p, v4)
		return !ok || !slices.Contains(answer, a)
	})
}

// Synthesize gives the IPv6 address that stands for an IPv4 one below a prefix. It is
// false for other addresses, other prefixes, and for an address that is not global
// below the Well-Known Prefix.
func Synthesize(p netip.Prefix, v4 netip.Addr) (netip.Addr, bool) {
	v4 = v4.Unmap()
	// "The Well-Known Prefix MUST NOT be used to represent non-global IPv4
	// addresses" RFC 6052, Section 3.1
	if p == wellKnown && slices.ContainsFunc(special, func(s netip.Prefix) bool { return s.Contains(v4) }) {
		return netip.Addr{}, false
	}
	return embed(p, v4)
}

// Probe is an address to which there is a route where there is IPv6; nothing is sent there.
var Probe, _ = embed(wellKnown, addresses[0])

// Below gives the IPv6 addresses that stand for the IPv4 ones of a host below each prefix.
func Below(prefixes []netip.Prefix, host []netip.Addr) (found []netip.Addr) {
	for _, p := range prefixes {
		for _, a := range host {
			if s, ok := Synthesize(p, a); ok && !slices.Contains(found, s) {
				found = append(found, s)
			}
		}
	}
	return found
}

// reserved is the octet that stays zero, bits 64 to 71 (RFC 6052, Section 2.2).
const reserved = 8

// embed puts v4 behind a prefix.
func embed(p netip.Prefix, v4 netip.Addr) (netip.Addr, bool) {
	if !v4.Is4() || !p.Addr().Is6() || p.Addr().Is4In6() || !slices.Contains(lengths, p.Bits()) {
		return netip.Addr{}, false
	}
	b := p.Masked().Addr().As16()
	if b[reserved] != 0 {
		return netip.Addr{}, false
	}
	at := p.Bits() / 8
	for _, octet := range v4.As4() {
		if at == reserved {
			at++
		}
		b[at] = octet
		at++
	}
	return netip.AddrFrom16(b), true
}

// split undoes embed; what stands behind the IPv4 address does not count.
func split(a netip.Addr, bits int) (p netip.Prefix, v4 netip.Addr, ok bool) {
	if !a.Is6() || a.Is4In6() || a.Zone() != "" {
		return p, v4, false
	}
	b := a.As16()
	if b[reserved] != 0 {
		return p, v4, false
	}
	at := bits / 8
	var four [4]byte
	for i := range four {
		if at == reserved {
			at++
		}
		four[i] = b[at]
		at++
	}
	return netip.PrefixFrom(a, bits).Masked(), netip.AddrFrom4(four), true
}
