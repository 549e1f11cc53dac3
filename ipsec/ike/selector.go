package ike

import (
	"net/netip"
	"slices"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// A TrafficSelector is a range of addresses, a range of ports and a protocol,
// RFC 7296, Section 3.13.1.
type TrafficSelector = message.TrafficSelector

// PrefixSelector is the selector of all packets of an address range. p must be
// valid.
func PrefixSelector(p netip.Prefix) TrafficSelector {
	p = p.Masked()
	end := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(end); i++ {
		end[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(end)
	return TrafficSelector{EndPort: 0xffff, Start: p.Addr(), End: last}
}

// allSelectors selects everything.
func allSelectors() []TrafficSelector {
	return []TrafficSelector{
		PrefixSelector(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
		PrefixSelector(netip.PrefixFrom(netip.IPv6Unspecified(), 0)),
	}
}

// narrow gives the part of what the peer proposed that we allow, in the
// proposed order (RFC 7296, Section 2.9). A range inside another that is
// already in the result is left out: peers put the selector of the very packet
// that started it all first.
func narrow(proposed, allowed []TrafficSelector) []TrafficSelector {
	var out []TrafficSelector
	for _, p := range proposed {
		for _, a := range allowed {
			s, ok := p.Intersect(a)
			if !ok || len(out) == message.MaxSelectors {
				continue
			}
			if !within([]TrafficSelector{s}, out) {
				out = slices.DeleteFunc(out, func(o TrafficSelector) bool {
					return within([]TrafficSelector{o}, []TrafficSelector{s})
				})
				out = append(out, s)
			}
		}
	}
	return out
}

// within reports whether every selector lies inside one of allowed, and there
// is at least one.
func within(ts, allowed []TrafficSelector) bool {
	for _, t := range ts {
		in := false
		for _, a := range allowed {
			if s, ok := t.Intersect(a); ok && s == t {
				in = true
				break
			}
		}
		if !in {
			return false
		}
	}
	return len(ts) > 0
}
