//go:build !linux

package udp

import (
	"net"

	"github.com/godwit-net/godwit/transports"
)

func wrapConn(c net.Conn, _ bool) socket {
	if u, ok := c.(*net.UDPConn); ok {
		u.SetReadBuffer(receiveBuffer)
	}
	return plainConn{c}
}

func wrapPacketConn(c transports.PacketConn, _ bool) socket {
	if u, ok := c.(*net.UDPConn); ok {
		u.SetReadBuffer(receiveBuffer)
	}
	return plainPacketConn{c}
}
