//go:build !linux

package system

import (
	"net"
	"syscall"
)

func (n *network) setUpEarly(network, address string, c syscall.RawConn) error {
	return n.setUp(network, address, c)
}

func (n *network) setUpTCP(network, address string, c syscall.RawConn) error {
	return n.setUp(network, address, c)
}

func listenEarly(syscall.RawConn) {}

// Connected waits for nothing: the connection is there.
func (c *earlyConn) Connected() error { return nil }

// Handshaking implements transports.Handshaking.
func (c *earlyConn) Handshaking() bool { return false }

type earlyListener struct{ net.Listener }
