package front

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// pac sends everything through the proxy but this machine itself and what shall
// bypass it. PROXY, not SOCKS5: with it every browser leaves names to the proxy.
// There is no fallback to DIRECT, which would go around the tunnel without a word.
// Only what is an address already is compared with ranges: isInNet would have a name
// resolved outside the tunnel.
const pac = `var names = %s;
var domains = %s;
var ranges = %s;

function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/^\[|\]$/g, "").replace(/\.$/, "");
  if (host == "localhost" || host == "::1" || /^127\.[0-9.]+$/.test(host)) {
    return "DIRECT";
  }
  for (var i = 0; i < names.length; i++) {
    if (host == names[i]) return "DIRECT";
  }
  for (var i = 0; i < domains.length; i++) {
    if (host.slice(-domains[i].length) == domains[i]) return "DIRECT";
  }
  for (var i = 0; /^[0-9.]+$/.test(host) && i < ranges.length; i++) {
    if (isInNet(host, ranges[i][0], ranges[i][1])) return "DIRECT";
  }
  return "PROXY %s";
}
`

// A Bypass is what browsers that use /proxy.pac go to without the proxy.
type Bypass struct {
	names   []string
	domains []string // each with a dot in front
	ranges  [][2]string
}

// ParseBypass reads a list of names such as printer.lan, domains such as
// *.intranet.example.org, which do not hold intranet.example.org itself, IPv4 addresses
// and ranges, and IPv6 addresses.
func ParseBypass(list []string) (b Bypass, err error) {
	for _, text := range list {
		if err := b.add(strings.ToLower(strings.TrimSpace(text))); err != nil {
			return Bypass{}, fmt.Errorf("%q: %w", text, err)
		}
	}
	return b, nil
}

func (b *Bypass) add(text string) error {
	p, err := netip.ParsePrefix(text)
	if a, aerr := netip.ParseAddr(text); aerr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err == nil {
		a := p.Masked().Addr()
		switch {
		case a.Is4():
			b.ranges = append(b.ranges, [2]string{a.String(), netip.AddrFrom4(mask(p.Bits())).String()})
		case p.IsSingleIP():
			b.names = append(b.names, a.String())
		default:
			return errors.New("browsers cannot compare with a range of IPv6")
		}
		return nil
	}
	domain, below := strings.CutPrefix(text, "*.")
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	if domain == "" || strings.Trim(domain, letters) != "" || strings.Contains(domain, "..") || strings.HasPrefix(domain, ".") {
		return errors.New("neither a name, nor *. and a domain, nor an address or range")
	}
	if domain = strings.TrimSuffix(domain, "."); below {
		b.domains = append(b.domains, "."+domain)
	} else {
		b.names = append(b.names, domain)
	}
	return nil
}

// mask gives a network mask of IPv4.
func mask(bits int) (m [4]byte) {
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// pac gives the file for a proxy at local.
func (b Bypass) pac(local string) string {
	list := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings alone
		}
		if string(text) == "null" {
			return "[]"
		}
		return string(text)
	}
	return fmt.Sprintf(pac, list(b.names), list(b.domains), list(b.ranges), local)
}
