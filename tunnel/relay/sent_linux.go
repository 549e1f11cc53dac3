package relay

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the peer of a socket has not acknowledged; 0 for what
// is broken or no socket.
func unsent(c net.Conn) (n int) {
	control(c, func(fd int) {
		// A connection that was reset keeps the number.
		if closed(fd) {
			return
		}
		var err error
		if n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ); err != nil {
			n = 0
		}
	})
	return n
}

// aborted tells whether a socket that has not been closed for writing is no
// longer connected: the peer has reset it.
func aborted(c net.Conn) (is bool) {
	c, _ = under(c)
	control(c, func(fd int) { is = closed(fd) })
	return is
}

// closed tells whether a socket is in the state CLOSED.
func closed(fd int) bool {
	const tcpClose = 7 // TCP_CLOSE of Linux's net/tcp_states.h
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == tcpClose
}

// control does nothing for what is closed or no socket.
func control(c net.Conn, f func(fd int)) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}
