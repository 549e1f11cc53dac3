package netwatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// carrierUpCount is IFLA_CARRIER_UP_COUNT of linux/if_link.h.
const carrierUpCount = 47

// askTimeout bounds the wait for the kernel, which answers such questions
// before the question's system call returns.
var askTimeout = unix.Timeval{Usec: 100_000}

// tellsGateways: here one can know that an interface has no router.
const tellsGateways = true

// findGateway asks the kernel for the route to remote, and for what it knows of
// the next hop and the interface.
func (a *Attachment) findGateway(remote netip.Addr, m Mark) { a.askRoute(remote, m, nil) }

// leadsTo does so for packets that leave by a's interface, and reports whether
// there is a route.
func (a *Attachment) leadsTo(remote netip.Addr, m Mark) bool {
	return a.askRoute(remote, m, attribute(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(a.Index))))
}

func (a *Attachment) askRoute(remote netip.Addr, m Mark, more []byte) bool {
	if remote.Is6() != a.Source.Is6() {
		return false
	}
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1] = family(remote), byte(remote.BitLen())
	if m != 0 {
		more = append(more, attribute(unix.RTA_MARK, binary.NativeEndian.AppendUint32(nil, uint32(m)))...)
	}
	route, err := ask(unix.RTM_GETROUTE, header, append(attribute(unix.RTA_DST, remote.AsSlice()), more...))
	if err != nil {
		return false
	}
	if index, ok := number(route[unix.RTA_OIF]); ok && int(index) != a.Index {
		a.Index, a.Interface = int(index), ""
	}
	a.Gateway, _ = netip.AddrFromSlice(route[unix.RTA_GATEWAY])

	header = make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(header[4:], uint32(a.Index))
	if link, err := ask(unix.RTM_GETLINK, header, nil); err == nil {
		a.Ups, _ = number(link[carrierUpCount])
		if name := link[unix.IFLA_IFNAME]; len(name) > 1 && a.Interface == "" {
			a.Interface = string(name[:len(name)-1])
		}
	}
	if !a.Gateway.IsValid() {
		return true
	}
	header = make([]byte, unix.SizeofNdMsg)
	header[0] = family(a.Gateway)
	binary.NativeEndian.PutUint32(header[4:], uint32(a.Index))
	if neighbour, err := ask(unix.RTM_GETNEIGH, header, attribute(unix.NDA_DST, a.Gateway.AsSlice())); err == nil {
		a.GatewayLink = net.HardwareAddr(neighbour[unix.NDA_LLADDR]).String()
	}
	return true
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func number(b []byte) (uint32, bool) {
	if len(b) != 4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(b), true
}

// attribute is a struct rtattr with its value, rtnetlink(7).
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// ask puts one question to rtnetlink and gives the attributes of the answer.
func ask(kind uint16, header, attributes []byte) (map[uint16][]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &askTimeout); err != nil {
		return nil, fmt.Errorf("netlink timeout: %w", err)
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(header)+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence and port
	b = append(append(b, header...), attributes...)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("netlink question: %w", err)
	}
	answer := make([]byte, 32<<10)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, fmt.Errorf("netlink answer: %w", err)
	}
	return attributesOf(answer[:n], len(header))
}

// attributesOf reads the attributes behind the header, of so many bytes, of the
// first message in b.
func attributesOf(b []byte, header int) (map[uint16][]byte, error) {
	ms, err := syscall.ParseNetlinkMessage(b)
	if err != nil || len(ms) == 0 {
		return nil, errors.Join(errors.New("netlink answer not understood"), err)
	}
	m := ms[0]
	if m.Header.Type == unix.NLMSG_ERROR {
		if code, ok := number(m.Data[:min(4, len(m.Data))]); ok && int32(code) < 0 {
			return nil, unix.Errno(-int32(code))
		}
		return nil, errors.New("netlink answer without an answer")
	}
	found := make(map[uint16][]byte)
	for rest := m.Data[min(header, len(m.Data)):]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			break
		}
		// The upper bits are flags: NLA_F_NESTED and NLA_F_NET_BYTEORDER.
		found[binary.NativeEndian.Uint16(rest[2:])&0x3fff] = rest[unix.SizeofRtAttr:size]
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return found, nil
}

// Control sets the mark of a socket; it is for net.Dialer.Control.
func (m Mark) Control(_, _ string, c syscall.RawConn) error {
	if m == 0 {
		return nil
	}
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(m)) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("mark a socket: %w", err)
	}
	return nil
}
