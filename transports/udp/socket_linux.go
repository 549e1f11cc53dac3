package udp

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/transports"
)

// defaultWireMTU is that of networks with jumbo frames: a system with less refuses
// larger packets at once.
const defaultWireMTU = 9000

// kernelSocket sends runs by UDP_SEGMENT and receives them by UDP_GRO, and
// learns and sets our own address by the packet information of IPv4 and IPv6.
type kernelSocket struct {
	conn  *net.UDPConn
	calls *calls
	oob   []byte      // for read, which one goroutine calls
	gso   atomic.Bool // UDP_SEGMENT works, as far as we know
	info  bool        // datagrams come with our address and need it to leave
}

func wrapConn(c net.Conn, offload bool) socket {
	if u, ok := c.(*net.UDPConn); ok {
		if s := newKernelSocket(u, false, offload); s != nil {
			return s
		}
	}
	return plainConn{c}
}

func wrapPacketConn(c transports.PacketConn, offload bool) socket {
	if u, ok := c.(*net.UDPConn); ok {
		if s := newKernelSocket(u, transports.AddrPort(u.LocalAddr()).Addr().IsUnspecified(), offload); s != nil {
			return s
		}
	}
	return plainPacketConn{c}
}

// newKernelSocket gives nil for a socket that is closed already.
func newKernelSocket(u *net.UDPConn, info, offload bool) *kernelSocket {
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	s := &kernelSocket{conn: u, calls: newCalls(u, raw), info: info, oob: make([]byte, 256)}
	u.SetReadBuffer(receiveBuffer)
	raw.Control(func(f uintptr) {
		fd := int(f)
		// Each of these may be missing or forbidden; then we do without.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		// DF is set and the kernel's own idea of the path MTU is not heeded:
		// finding it is the registration's business.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		if info {
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		if !offload {
			return
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		s.gso.Store(err == nil)
	})
	return s
}

// maxTooBig is how many messages about packets that were too big are passed over
// before one packet.
const maxTooBig = 1000

func (s *kernelSocket) close() error { return s.conn.Close() }
func (s *kernelSocket) joins() bool  { return s.gso.Load() }

func (s *kernelSocket) read(b []byte) (n, segment int, from peer, err error) {
	n, oobn, remote, err := s.calls.receive(b, s.oob)
	for tries := 0; tries < maxTooBig && errors.Is(err, unix.EMSGSIZE); tries++ {
		// Somebody on the way says that a packet was too big, or pretends to. It is
		// not heeded (RFC 8899, Section 4.6).
		n, oobn, remote, err = s.calls.receive(b, s.oob)
	}
	if err != nil {
		return 0, 0, peer{}, err
	}
	segment, local := parseControl(s.oob[:oobn])
	if segment == 0 {
		segment = n
	}
	return n, segment, peer{transports.Unmap(remote), local}, nil
}

// parseControl reads the segment size and our address, zero when not there.
func parseControl(oob []byte) (segment int, local netip.Addr) {
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return segment, local
		}
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 2:
			segment = int(binary.NativeEndian.Uint16(data))
			if len(data) >= 4 { // the kernel gives an int
				segment = int(binary.NativeEndian.Uint32(data))
			}
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// struct in_pktinfo: interface (4), local address (4), header's
			// destination (4)
			local = netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			// struct in6_pktinfo: address (16), interface (4)
			local = netip.AddrFrom16([16]byte(data[:16])).Unmap()
		}
		oob = rest
	}
	return segment, local
}

// control is room for the messages that write sends.
type control struct{ buf [128]byte }

var controls = sync.Pool{New: func() any { return new(control) }}

func (s *kernelSocket) write(b []byte, segment int, to peer) error {
	joined := len(b) > segment
	if !joined && (!s.info || !to.local.IsValid()) {
		err := s.calls.send(b, nil, to.remote)
		if errors.Is(err, unix.EMSGSIZE) && !to.remote.IsValid() {
			// It may be what was said of an earlier packet; see read.
			err = s.calls.send(b, nil, to.remote)
		}
		return err
	}
	c := controls.Get().(*control)
	oob := c.buf[:0]
	if s.info && to.local.IsValid() {
		oob = appendSource(oob, to.local)
	}
	plain := len(oob)
	if joined {
		oob = appendControl(oob, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(oob[plain+unix.CmsgLen(0):], uint16(segment))
	}
	err := s.calls.send(b, oob, to.remote)
	if joined && err != nil {
		// EIO: the interface can't. EINVAL, EMSGSIZE: it can't for this size.
		if errors.Is(err, unix.EIO) {
			s.gso.Store(false)
		}
		if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE) {
			err = s.writeEach(b, segment, oob[:plain], to)
		}
	}
	controls.Put(c)
	return err
}

// writeEach sends a run datagram by datagram.
func (s *kernelSocket) writeEach(b []byte, segment int, oob []byte, to peer) error {
	var result error
	for len(b) > 0 {
		n := min(segment, len(b))
		if err := s.calls.send(b[:n], oob, to.remote); err != nil {
			if fatal(err) {
				return err
			}
			result = err
		}
		b = b[n:]
	}
	return result
}

// appendSource has a datagram leave from our address a.
func appendSource(oob []byte, a netip.Addr) []byte {
	at := len(oob) + unix.CmsgLen(0)
	if a.Is4() {
		oob = appendControl(oob, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		a4 := a.As4()
		copy(oob[at+4:], a4[:])
		return oob
	}
	oob = appendControl(oob, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	a16 := a.As16()
	copy(oob[at:], a16[:])
	return oob
}

// appendControl appends a control message with size zero bytes of data.
func appendControl(oob []byte, level, typ int32, size int) []byte {
	start := len(oob)
	oob = oob[:start+unix.CmsgSpace(size)]
	clear(oob[start:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[start])) // aligned: control is, and CmsgSpace keeps it so
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(size))
	return oob
}
