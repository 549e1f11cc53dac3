package lab

import (
	"net/netip"

	"github.com/godwit-net/godwit/mobility/netwatch"
)

// Attachment is how packets to remote would leave now. The network's name
// stands for its router's link address. The error matches syscall.ENETUNREACH.
func (h *Host) Attachment(remote netip.Addr) (netwatch.Attachment, error) {
	h.in.lock()
	defer h.in.mu.Unlock()
	a, err := h.localAddress(remote.Unmap())
	if err != nil {
		return netwatch.Attachment{}, err
	}
	at := netwatch.Attachment{Source: a}
	if i := h.owner(a); i != nil {
		at.Interface, at.GatewayLink = i.name, i.network.name
		for _, p := range i.network.prefixes {
			if p.Contains(a) {
				at.Prefix = p
			}
		}
	}
	return at, nil
}
