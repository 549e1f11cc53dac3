package stream

import (
	"net"

	"golang.org/x/sys/unix"
)

// notSent bounds what the kernel holds beyond what it has in flight. Packets
// wait in our queue instead, where urgent ones overtake them.
const notSent = 128 << 10

// BBR does not take a lost packet for a full path, as a radio link loses
// them at any rate. Where it is not to be had, the usual one stays.
const bbr = "bbr"

func limitUnsent(t *net.TCPConn) {
	control(t, func(fd int) {
		// A kernel without the option just queues more.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, bbr)
	})
}

func control(t *net.TCPConn, f func(fd int)) {
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) })
}

// pacedRate is what BBR takes the path's rate to be, in bytes a second; false where
// it is not in use.
func pacedRate(t *net.TCPConn) (rate uint64, ok bool) {
	control(t, func(fd int) {
		if name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || name != bbr {
			return
		}
		if i, err := unix.GetsockoptTCPCCBBRInfo(fd, unix.IPPROTO_TCP, unix.TCP_CC_INFO); err == nil {
			rate, ok = uint64(i.Bw_hi)<<32|uint64(i.Bw_lo), true
		}
	})
	return rate, ok
}

// restart has BBR begin anew. To name what is in use already changes nothing, so
// it goes by way of Reno, which every kernel has.
func restart(t *net.TCPConn) {
	control(t, func(fd int) {
		if unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") == nil {
			_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, bbr)
		}
	})
}
