package mobility

import (
	"net/netip"

	"github.com/godwit-net/godwit/transports"
)

// Judge compares how a packet left with how it arrived and says what lies
// between. When several verdicts apply the last of this order is given: nat,
// napt, destination, protocol, intermediary. An address or port that one side
// does not know (invalid, unspecified, zero) counts as equal.
func Judge(sent, seen transports.Description) Verdict {
	if sent.Proxy != "" || seen.Proxy != "" {
		return Intermediary
	}
	// The certificate is zero without TLS, so one side only having one is a
	// difference: something ended TLS on the way.
	if sent.CertHash != seen.CertHash || textDiffers(sent.Authority, seen.Authority) || textDiffers(sent.Path, seen.Path) {
		return Intermediary
	}
	src := compare(sent.Source, seen.Source)
	dst := compare(sent.Destination, seen.Destination)
	switch {
	case src.version || dst.version:
		return Protocol
	case dst.addr || dst.port:
		return Destination
	case src.port:
		return NAPT
	case src.addr:
		return NAT
	}
	return None
}

func textDiffers(a, b string) bool { return a != "" && b != "" && a != b }

type difference struct{ version, addr, port bool }

func compare(a, b netip.AddrPort) (d difference) {
	x, y := a.Addr().Unmap().WithZone(""), b.Addr().Unmap().WithZone("")
	if !x.IsValid() || !y.IsValid() {
		return d
	}
	d.port = a.Port() != b.Port() && a.Port() != 0 && b.Port() != 0
	if x.IsUnspecified() || y.IsUnspecified() {
		return d
	}
	d.version = x.Is4() != y.Is4()
	d.addr = x != y
	return d
}
