package egress

import (
	"context"
	"net"
	"net/netip"
)

// A NameServer answers clients' questions for names: what goes to port 53 of one
// of this end's own inner addresses goes to a resolver instead, which the policy
// does not concern. The zero NameServer answers nothing.
type NameServer struct {
	Gateways []netip.Addr
	Resolver netip.AddrPort
}

// target gives where a packet goes that is a question.
func (n NameServer) target(to netip.AddrPort) (netip.AddrPort, bool) {
	if to.Port() != dnsPort || !n.Resolver.IsValid() {
		return netip.AddrPort{}, false
	}
	for _, g := range n.Gateways {
		if to.Addr() == g {
			return n.Resolver, true
		}
	}
	return netip.AddrPort{}, false
}

// Dial gives a dialer that answers questions, over TCP (RFC 7766), and leaves all
// other targets to next.
func (n NameServer) Dial(next func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return next(ctx, network, address)
		}
		resolver, ok := n.target(netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
		if !ok {
			return next(ctx, network, address)
		}
		ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
		return system(ctx, network, resolver)
	}
}
