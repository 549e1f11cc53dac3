package system

import (
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// bind is IP_BOUND_IF of ip(4), and its like for IPv6.
func bind(fd uintptr, network, iface string) error {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	if strings.HasSuffix(network, "6") {
		return unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_BOUND_IF, i.Index)
	}
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BOUND_IF, i.Index)
}
