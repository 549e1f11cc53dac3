package system

import (
	"net"

	"golang.org/x/sys/unix"
)

// rawBuffer is what to ask of the kernel for arriving packets, in bytes.
const rawBuffer = 4 << 20

// tuneRaw sets the bit that forbids fragments and makes room for bursts. Each of
// these may fail; then we do without.
func tuneRaw(c *net.IPConn) {
	_ = c.SetReadBuffer(rawBuffer)
	s, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = s.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rawBuffer)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	})
}
