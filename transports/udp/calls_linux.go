package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/transports"
)

// calls makes recvmsg and sendmsg on a socket that does not block, without
// telling Go's scheduler. A call that moves 60 KiB takes longer than the 20
// microseconds after which the scheduler takes it for one that blocks: it gives
// the processor to another thread, and wakes up every 20 microseconds to look
// for more such calls. That was a tenth of the processor time of a transfer.
type calls struct {
	conn   *net.UDPConn
	raw    syscall.RawConn
	v6     bool // addresses are IPv6, those of IPv4 mapped into it
	in     message
	out    sync.Pool // of *message
	remote netip.AddrPort
}

// A message is what one call works in.
type message struct {
	header unix.Msghdr
	iov    unix.Iovec
	name   unix.RawSockaddrInet6 // has room for IPv4's
	n      int
	err    syscall.Errno
	try    func(fd uintptr) bool // made once, so that a call allocates nothing
}

func newCalls(conn *net.UDPConn, raw syscall.RawConn) *calls {
	c := &calls{conn: conn, raw: raw, remote: transports.AddrPort(conn.RemoteAddr())}
	raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		c.v6 = err == nil && domain == unix.AF_INET6
	})
	c.in.prepare(unix.SYS_RECVMSG)
	c.out.New = func() any {
		m := new(message)
		m.prepare(unix.SYS_SENDMSG)
		return m
	}
	return c
}

func (m *message) prepare(call uintptr) {
	m.header.Iov = &m.iov
	m.header.SetIovlen(1)
	m.try = func(fd uintptr) bool {
		for {
			n, _, err := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&m.header)), 0)
			m.n, m.err = int(n), err
			switch err {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				return false
			}
			return true
		}
	}
}

// set points to what is to be sent, or to room for what comes.
func (m *message) set(b, oob []byte) {
	m.iov.Base, m.header.Control = nil, nil
	if len(b) > 0 {
		m.iov.Base = &b[0]
	}
	m.iov.SetLen(len(b))
	if len(oob) > 0 {
		m.header.Control = &oob[0]
	}
	m.header.SetControllen(len(oob))
}

// receive reads one datagram, or a run of them. Only one goroutine may call it.
func (c *calls) receive(b, oob []byte) (n, oobn int, from netip.AddrPort, err error) {
	m := &c.in
	m.set(b, oob)
	m.header.Name, m.header.Namelen = (*byte)(unsafe.Pointer(&m.name)), unix.SizeofSockaddrInet6
	err = c.raw.Read(m.try)
	m.iov.Base, m.header.Control = nil, nil
	switch {
	case err != nil:
	case m.err != 0:
		err = c.failed("read", "recvmsg", m.err, c.remote)
	default:
		return m.n, int(m.header.Controllen), m.address(), nil
	}
	return 0, 0, netip.AddrPort{}, err
}

// send sends b, to the zero address if the socket is connected.
func (c *calls) send(b, oob []byte, to netip.AddrPort) error {
	if to.Addr().Zone() != "" {
		// Package net knows the interface of that name.
		_, _, err := c.conn.WriteMsgUDPAddrPort(b, oob, to)
		return err
	}
	m := c.out.Get().(*message)
	m.set(b, oob)
	m.header.Name, m.header.Namelen = nil, 0
	if to.IsValid() {
		m.header.Name, m.header.Namelen = (*byte)(unsafe.Pointer(&m.name)), m.setAddress(to, c.v6)
	} else {
		to = c.remote
	}
	err := c.raw.Write(m.try)
	if err == nil && m.err != 0 {
		err = c.failed("write", "sendmsg", m.err, to)
	}
	m.set(nil, nil)
	c.out.Put(m)
	return err
}

func (c *calls) failed(op, call string, err syscall.Errno, remote netip.AddrPort) error {
	e := &net.OpError{Op: op, Net: "udp", Source: c.conn.LocalAddr(), Err: os.NewSyscallError(call, err)}
	if remote.IsValid() {
		e.Addr = net.UDPAddrFromAddrPort(remote)
	}
	return e
}

// setAddress writes an address as the kernel has it and gives its length.
func (m *message) setAddress(a netip.AddrPort, v6 bool) uint32 {
	m.name = unix.RawSockaddrInet6{}
	port := (*[2]byte)(unsafe.Pointer(&m.name.Port)) // in both families
	binary.BigEndian.PutUint16(port[:], a.Port())
	if v6 {
		m.name.Family, m.name.Addr = unix.AF_INET6, a.Addr().As16()
		return unix.SizeofSockaddrInet6
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&m.name))
	v4.Family = unix.AF_INET
	if addr := a.Addr().Unmap(); addr.Is4() {
		v4.Addr = addr.As4()
	}
	return unix.SizeofSockaddrInet4
}

// address is where a datagram came from; the zero AddrPort if the kernel does
// not say.
func (m *message) address() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&m.name.Port))[:])
	switch {
	case m.header.Namelen >= unix.SizeofSockaddrInet4 && m.name.Family == unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&m.name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	case m.header.Namelen >= unix.SizeofSockaddrInet6 && m.name.Family == unix.AF_INET6:
		a := netip.AddrFrom16(m.name.Addr)
		if m.name.Scope_id != 0 && !a.Is4In6() {
			a = a.WithZone(zone(m.name.Scope_id))
		}
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPort{}
}

// zones remembers the names of interfaces, by their numbers.
var zones sync.Map

// zone names the interface of a link-local address. An interface that gets
// another name keeps its first one here; the kernel finds addresses by it no more.
func zone(index uint32) string {
	if name, ok := zones.Load(index); ok {
		return name.(string)
	}
	i, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return ""
	}
	zones.Store(index, i.Name)
	return i.Name
}
