package portmux

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// introduce reads what a trusted reverse proxy says of the visitor, where it says
// something. It is false for what begins like the PROXY protocol and breaks its
// rules. A proxy that comes for itself, as it does to see whether the server is
// there, stays who it is.
func (m *Mux) introduce(c *Conn) bool {
	if m.trusted == nil || !m.trusted(addrPort(c.Conn.RemoteAddr()).Addr()) {
		return true
	}
	// What came in the SYN may have been sent by anybody.
	if h, ok := c.Conn.(interface{ Connected() error }); ok && h.Connected() != nil {
		return false
	}
	r := bufio.NewReader(c.Conn)
	h, err := proxyproto.Read(r)
	rest, _ := r.Peek(r.Buffered()) // cannot fail: it is there
	c.seen = bytes.Clone(rest)
	switch {
	case errors.Is(err, proxyproto.ErrNoProxyProtocol):
		return true
	case err != nil:
		var ne net.Error
		// Nothing came in time, which is the web server's to deal with.
		return errors.As(err, &ne) && ne.Timeout() && len(rest) == 0
	case h.Command.IsLocal():
		return true
	}
	source, destination := addrPort(h.SourceAddr), addrPort(h.DestinationAddr)
	if h.TransportProtocol.IsStream() && source.IsValid() && destination.IsValid() {
		c.source, c.destination = source, destination
	}
	return true
}

// addrPort gives the zero AddrPort for what is no address of TCP.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok || t == nil {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
