package netwatch

import (
	"net"
	"net/netip"
)

// maxInterfaces bounds how many interfaces are looked at.
const maxInterfaces = 64

// Attachments tells by which interfaces packets to remote can leave, the one
// that they take by themselves first; none if there is no way. An interface
// counts that has an address of remote's IP version and a router, or that leads
// to remote directly. Where the system does not tell of routers, all count that
// have an address.
func Attachments(remote netip.Addr) []Attachment { return Mark(0).Attachments(remote) }

// Attachments is Attachments for packets with the mark.
func (m Mark) Attachments(remote netip.Addr) []Attachment {
	first, err := m.AttachmentTo(remote)
	if err != nil {
		return nil
	}
	list := []Attachment{first}
	interfaces, err := net.Interfaces()
	if err != nil {
		return list
	}
	for _, i := range interfaces[:min(len(interfaces), maxInterfaces)] {
		if i.Index == first.Index || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || first.Source.IsLoopback() {
			continue
		}
		if a, ok := through(i, remote.Unmap(), m); ok {
			list = append(list, a)
		}
	}
	return list
}

// through is how packets to remote would leave by i.
func through(i net.Interface, remote netip.Addr, m Mark) (Attachment, bool) {
	addrs, err := i.Addrs()
	if err != nil {
		return Attachment{}, false
	}
	for _, x := range addrs {
		n, ok := x.(*net.IPNet)
		if !ok {
			continue
		}
		source, _ := netip.AddrFromSlice(n.IP)
		if source = source.Unmap(); source.Is4() != remote.Is4() || source.IsLinkLocalUnicast() || source.IsLoopback() {
			continue
		}
		ones, _ := n.Mask.Size()
		a := Attachment{Source: source, Prefix: netip.PrefixFrom(source, ones).Masked(), Interface: i.Name, Index: i.Index}
		if !a.leadsTo(remote, m) {
			return Attachment{}, false
		}
		return a, a.Gateway.IsValid() || !tellsGateways || i.Flags&net.FlagPointToPoint != 0 || a.Prefix.Contains(remote)
	}
	return Attachment{}, false
}
