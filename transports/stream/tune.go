package stream

import (
	"net"

	"github.com/godwit-net/godwit/transports"
)

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

// Describe gives the addresses of a connection, and the proxy that it goes
// through if it has a method that names one.
func Describe(c net.Conn) transports.Description {
	d := transports.Description{
		Source:      transports.AddrPort(c.LocalAddr()),
		Destination: transports.AddrPort(c.RemoteAddr()),
	}
	if p, ok := c.(interface{ Proxy() string }); ok {
		d.Proxy = p.Proxy()
	}
	return d
}

// Tune prepares a TCP socket for packets. Other connections stay as they are.
func Tune(c net.Conn) {
	t := socket(c)
	if t == nil {
		return
	}
	t.SetNoDelay(true) // Go's default, but everything here depends on it
	limitUnsent(t)
}

// socket is the system's socket beneath c; nil if there is none.
func socket(c net.Conn) *net.TCPConn {
	s := Innermost(c)
	if w, ok := s.(interface{ Socket() *net.TCPConn }); ok {
		s = w.Socket()
	}
	t, _ := s.(*net.TCPConn)
	return t
}
