package ike

import "net/netip"

// A TrafficSelector is a range of addresses, a range of ports and a protocol,
// RFC 7296, Section 3.13.1. Both addresses are of one family.
type TrafficSelector struct {
	Protocol           uint8 // IP protocol; 0 is any
	StartPort, EndPort uint16
	Start, End         netip.Addr
}

// PrefixSelector is the selector of all packets of an address range.
func PrefixSelector(p netip.Prefix) TrafficSelector { return TrafficSelector{} }
