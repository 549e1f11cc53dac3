package system

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/transports"
)

// maxSegment fits the smallest MTU of IPv6 (RFC 8200, Section 5) with its header and TCP's:
// 1280 - 40 - 20 bytes.
const maxSegment = 1220

// setUpTCP keeps the segments of both directions so small that they pass where
// the messages that tell of the path's MTU do not arrive. TCP would stall there.
func (n *network) setUpTCP(network, address string, c syscall.RawConn) error {
	if err := n.setUp(network, address, c); err != nil {
		return err
	}
	return c.Control(func(fd uintptr) {
		// A system that refuses goes by its own idea.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, maxSegment)
	})
}

const (
	tcpFastOpenNoCookie = 34  // TCP_FASTOPEN_NO_COOKIE of linux/tcp.h
	earlyBacklog        = 256 // connections that wait with data
)

// setUpEarly has connect wait for the first write. A cookie (RFC 7413, Section 4.1)
// would be bound to an address that a mobile host has just left; a system without
// the options connects as ever.
func (n *network) setUpEarly(network, address string, c syscall.RawConn) error {
	if err := n.setUpTCP(network, address, c); err != nil {
		return err
	}
	return c.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpFastOpenNoCookie, 1) == nil {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		}
	})
}

// listenEarly takes data in SYNs, where net.ipv4.tcp_fastopen is 3 (or 2).
func listenEarly(c syscall.RawConn) {
	_ = c.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpFastOpenNoCookie, 1) == nil {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN, earlyBacklog)
		}
	})
}

// States of tcp(7), as linux/tcp_states.h numbers them.
const (
	stateEstablished = 1
	stateSynSent     = 2
	stateSynReceived = 3
)

// Connected waits for the end of the handshake.
func (c *earlyConn) Connected() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		switch {
		case err != nil:
			failed = os.NewSyscallError("getsockopt", err)
			return true
		case info.State == stateSynSent || info.State == stateSynReceived:
			return false
		}
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
			failed = os.NewSyscallError("connect", syscall.Errno(n))
		} else if info.State == stateEstablished && info.Total_retrans > 0 && c.shunned != nil {
			c.shunned.add(transports.AddrPort(c.LocalAddr()).Addr())
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

// EarlyTaken tells, after the handshake, whether the peer has taken the data that
// was in the SYN.
func (c *earlyConn) EarlyTaken() bool {
	const synData = 32 // TCPI_OPT_SYN_DATA of linux/tcp.h
	info := c.info()
	return info != nil && info.Options&synData != 0
}

// info is what the kernel knows of the connection; nil if it does not tell.
func (c *earlyConn) info() (info *unix.TCPInfo) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		if i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			info = i
		}
	})
	return info
}

// Handshaking implements transports.Handshaking.
func (c *earlyConn) Handshaking() bool {
	info := c.info()
	return info != nil && info.State == stateSynReceived
}

// earlyListener marks connections that are accepted before the handshake is over.
type earlyListener struct{ net.Listener }

// Accept gives a *net.TCPConn, or what marks one.
func (l earlyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(*net.TCPConn); ok && err == nil {
		if e := (&earlyConn{TCPConn: t}); e.Handshaking() {
			return e, nil
		}
	}
	return c, err
}
