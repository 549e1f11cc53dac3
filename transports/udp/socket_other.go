//go:build !linux

package udp

import (
	"net"

	"github.com/godwit-net/godwit/transports"
)

// defaultWireMTU is Ethernet's: nothing keeps these systems from making fragments of
// what is larger.
const defaultWireMTU = 1500

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
