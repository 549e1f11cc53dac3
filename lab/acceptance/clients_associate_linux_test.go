//go:build netns

package acceptance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// An associate is a net.PacketConn whose datagrams go by UDP ASSOCIATE of a SOCKS5
// proxy (RFC 1928, Section 7). It takes targets by IPv4 address.
type associate struct {
	net.Conn          // to the relay
	control  net.Conn // the association lives as long as this
}

// newAssociate asks the proxy of h.
func newAssociate(t *testing.T, h *netns.Host) *associate {
	t.Helper()
	control, err := h.Dial("tcp", proxyAddress)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	_ = control.SetDeadline(time.Now().Add(time.Minute))
	// Version 5, one method: none. Version 5, UDP ASSOCIATE, from anywhere.
	if _, err := control.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	var reply [12]byte
	if _, err := io.ReadFull(control, reply[:]); err != nil || reply[3] != 0 || reply[5] != 1 {
		t.Fatalf("reply %x, %v", reply, err)
	}
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:10])), uint16(reply[10])<<8|uint16(reply[11]))
	conn, err := h.Dial("udp", relay.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.(*net.UDPConn).SetReadBuffer(1 << 20)
	_ = control.SetDeadline(time.Time{})
	return &associate{conn, control}
}

// WriteTo sends a datagram to a target.
func (a *associate) WriteTo(b []byte, to net.Addr) (int, error) {
	target, ok := to.(*net.UDPAddr)
	if !ok || !target.AddrPort().Addr().Unmap().Is4() {
		return 0, fmt.Errorf("no IPv4 address: %v", to)
	}
	at := netip.AddrPortFrom(target.AddrPort().Addr().Unmap(), target.AddrPort().Port())
	if _, err := a.Write(append(udpHeader(at), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadFrom gives a datagram, and the target that it is of.
func (a *associate) ReadFrom(b []byte) (int, net.Addr, error) {
	buf := make([]byte, 64<<10)
	n, err := a.Read(buf)
	if err != nil {
		return 0, nil, err
	}
	if n < 10 || buf[2] != 0 || buf[3] != 1 {
		return 0, nil, errors.New("a datagram from the relay has another header")
	}
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte(buf[4:8])), uint16(buf[8])<<8|uint16(buf[9]))
	return copy(b, buf[10:n]), net.UDPAddrFromAddrPort(from), nil
}

// Close ends the association.
func (a *associate) Close() error { return errors.Join(a.Conn.Close(), a.control.Close()) }

// relayPort has a local port of h lead to a target by UDP ASSOCIATE, for programs
// that know no proxy.
func relayPort(t *testing.T, h *netns.Host, port string, to netip.AddrPort) {
	t.Helper()
	out := newAssociate(t, h)
	in := h.ListenPacket("udp", port)
	var last net.Addr // whoever asked last; set before the answer can come
	up, down := make(chan struct{}), make(chan struct{})
	asked := make(chan net.Addr, 100)
	go func() {
		defer close(up)
		b := make([]byte, 64<<10)
		for {
			n, from, err := in.ReadFrom(b)
			if err != nil {
				return
			}
			asked <- from
			if _, err := out.WriteTo(b[:n], net.UDPAddrFromAddrPort(to)); err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(down)
		b := make([]byte, 64<<10)
		for {
			n, _, err := out.ReadFrom(b)
			if err != nil {
				return
			}
			for more := true; more; {
				select {
				case last = <-asked:
				default:
					more = false
				}
			}
			_, _ = in.WriteTo(b[:n], last)
		}
	}()
	t.Cleanup(func() { in.Close(); out.Close(); <-up; <-down })
}
