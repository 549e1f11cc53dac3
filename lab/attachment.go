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
	return h.attachment(a), nil
}

// attachment is how packets from address a leave.
func (h *Host) attachment(a netip.Addr) netwatch.Attachment {
	at := netwatch.Attachment{Source: a}
	if i := h.owner(a); i != nil {
		at.Interface, at.GatewayLink = i.name, i.network.name
		for _, p := range i.network.prefixes {
			if p.Contains(a) {
				at.Prefix = p
			}
		}
	}
	return at
}

// Interfaces tells how packets to remote can leave, the way first that they take
// by themselves: by one address of each interface.
func (h *Host) Interfaces(remote netip.Addr) []netwatch.Attachment {
	h.in.lock()
	defer h.in.mu.Unlock()
	remote = remote.Unmap()
	a, err := h.localAddress(remote)
	if err != nil {
		return nil
	}
	list := []netwatch.Attachment{h.attachment(a)}
	for _, i := range h.ifaces {
		for _, a := range i.addrs {
			if a.Is4() == remote.Is4() && i.name != list[0].Interface {
				list = append(list, h.attachment(a))
				break
			}
		}
	}
	return list
}
