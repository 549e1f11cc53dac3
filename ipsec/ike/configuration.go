package ike

import (
	"bytes"
	"net/netip"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func (c Configuration) payload(t message.ConfigType) *message.Config {
	p := &message.Config{ConfigType: t}
	for _, a := range c {
		p.Attributes = append(p.Attributes, message.ConfigAttribute{Type: uint16(a.Type), Value: a.Value})
	}
	return p
}

func configuration(p *message.Config) Configuration {
	c := Configuration{}
	for _, a := range p.Attributes {
		c = append(c, Attribute{Type: AttributeType(a.Type), Value: bytes.Clone(a.Value)})
	}
	return c
}

// selectors gives the inner addresses assigned, as traffic selectors.
func (c Configuration) selectors() []TrafficSelector {
	var ts []TrafficSelector
	for _, a := range c {
		if a.Type != InternalIP4Address && a.Type != InternalIP6Address {
			continue
		}
		v := a.Value
		if a.Type == InternalIP6Address && len(v) == 17 {
			v = v[:16]
		}
		if ip, ok := netip.AddrFromSlice(v); ok && ip.Is4() == (a.Type == InternalIP4Address) {
			ts = append(ts, PrefixSelector(netip.PrefixFrom(ip, ip.BitLen())))
		}
	}
	return ts
}
