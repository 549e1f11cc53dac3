package stream

import "net"

// Innermost goes through the wrappers of a connection (those with a NetConn
// method, as *tls.Conn has) down to the socket.
func Innermost(c net.Conn) net.Conn {
	for range 8 { // wrappers are few; a cycle of them must not hang us
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = w.NetConn()
	}
	return c
}

// Tune prepares a TCP socket for packets. Other connections stay as they are.
func Tune(c net.Conn) {
	t, ok := Innermost(c).(*net.TCPConn)
	if !ok {
		return
	}
	t.SetNoDelay(true) // Go's default, but everything here depends on it
	limitUnsent(t)
}
