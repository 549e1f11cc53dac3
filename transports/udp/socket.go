package udp

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/godwit-net/godwit/transports"
)

const (
	// bufferSize holds any datagram, and any run of them that the kernel joins.
	bufferSize = 65536
	// maxRun and maxRunBytes bound what goes into one call. Linux takes 64
	// segments (UDP_MAX_SEGMENTS) and what fits an IPv4 packet.
	maxRun      = 64
	maxRunBytes = 65000
	// receiveBuffer is what to ask of the kernel for arriving datagrams: 4 MiB
	// are 30 ms at 1 Gbit/s, which covers a busy reader.
	receiveBuffer = 4 << 20
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A peer says between which addresses a datagram goes. The zero value stands
// for those of a connected socket.
type peer struct {
	remote netip.AddrPort
	local  netip.Addr // ours; invalid when unknown or left to the system
}

// A socket reads and writes runs of datagrams: all but the last are of segment
// bytes, the last may be shorter.
type socket interface {
	read(b []byte) (n, segment int, from peer, err error)
	write(b []byte, segment int, to peer) error
	// joins tells whether write takes more than one datagram at a time.
	joins() bool
	close() error
}

// A runWriter is a connection that writes a run in fewer calls. to is zero for
// a connected one.
type runWriter interface {
	WriteRun(b []byte, segment int, to netip.AddrPort) error
}

// plainConn is a connected socket without offloads.
type plainConn struct{ net.Conn }

func (s plainConn) read(b []byte) (int, int, peer, error) {
	n, err := s.Read(b)
	return n, n, peer{}, err
}
func (s plainConn) write(b []byte, segment int, _ peer) error {
	if r, ok := s.Conn.(runWriter); ok {
		return r.WriteRun(b, segment, netip.AddrPort{})
	}
	_, err := s.Write(b)
	return err
}
func (s plainConn) joins() bool  { _, ok := s.Conn.(runWriter); return ok }
func (s plainConn) close() error { return s.Close() }

// plainPacketConn is an unconnected socket without offloads.
type plainPacketConn struct{ transports.PacketConn }

func (s plainPacketConn) read(b []byte) (int, int, peer, error) {
	n, from, err := s.ReadFromUDPAddrPort(b)
	return n, n, peer{remote: transports.Unmap(from)}, err
}
func (s plainPacketConn) write(b []byte, segment int, to peer) error {
	if r, ok := s.PacketConn.(runWriter); ok {
		return r.WriteRun(b, segment, to.remote)
	}
	_, err := s.WriteToUDPAddrPort(b, to.remote)
	return err
}
func (s plainPacketConn) joins() bool  { _, ok := s.PacketConn.(runWriter); return ok }
func (s plainPacketConn) close() error { return s.Close() }

// sendAll sends ps in order, in runs of equal size where the socket joins them.
// Errors of single packets do not keep it from the others.
func sendAll(ps []transports.Packet, mtu int, s socket, to peer) error {
	var result error
	note := func(err error) (stop bool) {
		switch {
		case err == nil:
			return false
		case errors.Is(err, syscall.EMSGSIZE):
			err = transports.ErrTooBig
		}
		if result == nil {
			result = err
		}
		return fatal(err)
	}
	var buf *[bufferSize]byte
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	for i := 0; i < len(ps); {
		size := wireSize(ps[i])
		if size > mtu {
			note(transports.ErrTooBig)
			i++
			continue
		}
		if len(ps[i].Data) == 0 {
			i++
			continue
		}
		n, run := 1, size
		if s.joins() {
			for i+n < len(ps) && n < maxRun {
				next := wireSize(ps[i+n])
				if next > size || len(ps[i+n].Data) == 0 || run+next > maxRunBytes {
					break
				}
				n, run = n+1, run+next
				if next < size {
					break // a shorter one ends the run
				}
			}
		}
		b := ps[i].Data
		if whole, ok := adjacent(ps[i:i+n], run); ok {
			b = whole
		} else if n > 1 || ps[i].Kind == transports.KindIKE {
			if buf == nil {
				buf = buffers.Get().(*[bufferSize]byte)
			}
			b = buf[:0]
			for _, p := range ps[i : i+n] {
				b = appendWire(b, p)
			}
		}
		if note(s.write(b, size, to)) {
			return result
		}
		i += n
	}
	return result
}

// adjacent gives ESP packets of size bytes together as the one slice that they
// already are, when they lie one behind the other in the same array.
func adjacent(ps []transports.Packet, size int) ([]byte, bool) {
	first := ps[0].Data
	if ps[0].Kind != transports.KindESP || cap(first) < size {
		return nil, false
	}
	whole := first[:size]
	at := len(first)
	for _, p := range ps[1:] {
		if p.Kind != transports.KindESP || &whole[at] != &p.Data[0] {
			return nil, false
		}
		at += len(p.Data)
	}
	return whole, true
}

// wireSize is the size of p's UDP payload.
func wireSize(p transports.Packet) int {
	if p.Kind == transports.KindIKE {
		return transports.MarkerSize + len(p.Data)
	}
	return len(p.Data)
}

func appendWire(b []byte, p transports.Packet) []byte {
	if p.Kind == transports.KindIKE {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, p.Data...)
}

// A receiver reads runs and cuts them into packets.
type receiver struct {
	buf *[bufferSize]byte
	ps  []transports.Packet
}

func newReceiver() *receiver { return &receiver{buf: buffers.Get().(*[bufferSize]byte)} }

func (r *receiver) release() { buffers.Put(r.buf) }

// receive gives the packets of one run, which are valid until the next call.
func (r *receiver) receive(s socket) ([]transports.Packet, peer, error) {
	n, segment, from, err := s.read(r.buf[:])
	if err != nil {
		return nil, peer{}, err
	}
	r.ps = split(r.buf[:n], segment, r.ps[:0])
	return r.ps, from, nil
}

// split cuts a run into its datagrams and appends their packets to ps.
func split(b []byte, segment int, ps []transports.Packet) []transports.Packet {
	if segment <= 0 {
		segment = len(b)
	}
	for len(b) > 0 {
		n := min(segment, len(b))
		if p, ok := transports.Classify(b[:n:n]); ok {
			ps = append(ps, p)
		}
		b = b[n:]
	}
	return ps
}
