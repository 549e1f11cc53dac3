package stream

import (
	"net"

	"golang.org/x/sys/unix"
)

// notSent bounds what the kernel holds beyond what it has in flight. Packets
// wait in our queue instead, where urgent ones overtake them.
const notSent = 128 << 10

func limitUnsent(t *net.TCPConn) {
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		// A kernel without the option just queues more.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		// BBR does not take a lost packet for a full path, as a radio link loses
		// them at any rate. Where it is not to be had, the usual one stays.
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr")
	})
}
