package system

import (
	"math/bits"
	"net"
	"strings"

	"golang.org/x/sys/windows"
)

// unicastIf is IP_UNICAST_IF and IPV6_UNICAST_IF of ws2ipdef.h.
const unicastIf = 31

// bind chooses the interface of outgoing packets. For IPv4 the index is in
// network byte order.
func bind(fd uintptr, network, iface string) error {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	if strings.HasSuffix(network, "6") {
		return windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, unicastIf, i.Index)
	}
	return windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, unicastIf, int(bits.ReverseBytes32(uint32(i.Index))))
}
