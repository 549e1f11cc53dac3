package transporttest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// pipeSize is how many bytes a connection of a Memory holds in each direction.
const pipeSize = 64 << 10

// A Memory is a network without delay or loss whose sockets work in a bubble of
// testing/synctest: waiting for them blocks durably.
type Memory struct {
	mu   sync.Mutex
	port uint16 // the last one given to a client
	tcp  map[netip.AddrPort]*memListener
	udp  map[netip.AddrPort]*memUDP
}

// NewMemory gives an empty network.
func NewMemory() *Memory {
	return &Memory{port: 40000, tcp: make(map[netip.AddrPort]*memListener), udp: make(map[netip.AddrPort]*memUDP)}
}

func (m *Memory) client(local netip.Addr) netip.AddrPort {
	if !local.IsValid() {
		local = netip.AddrFrom4([4]byte{10, 0, 0, 1})
	}
	m.port++
	return netip.AddrPortFrom(local, m.port)
}

// DialTCP implements transports.Network.
func (m *Memory) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	m.mu.Lock()
	l := m.tcp[remote]
	from := m.client(local)
	m.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", remote, syscall.ECONNREFUSED)
	}
	there, back := newPipe(), newPipe()
	c := &memConn{r: back, w: there, local: from, remote: remote}
	s := &memConn{r: there, w: back, local: remote, remote: from}
	select {
	case l.conns <- s:
		select {
		case <-l.done:
			l.reset()
		default:
		}
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("dial %s: %w", remote, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ListenTCP implements transports.Network.
func (m *Memory) ListenTCP(_ context.Context, local netip.AddrPort) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tcp[local] != nil {
		return nil, fmt.Errorf("listen on %s: %w", local, syscall.EADDRINUSE)
	}
	l := &memListener{net: m, addr: local, conns: make(chan net.Conn, 128), done: make(chan struct{})}
	m.tcp[local] = l
	return l, nil
}

// DialUDP implements transports.Network.
func (m *Memory) DialUDP(_ context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	m.mu.Lock()
	from := m.client(local)
	m.mu.Unlock()
	u, err := m.newUDP(from)
	if err != nil {
		return nil, err
	}
	return memUDPConn{u, remote}, nil
}

// ListenUDP implements transports.Network.
func (m *Memory) ListenUDP(_ context.Context, local netip.AddrPort) (transports.PacketConn, error) {
	return m.newUDP(local)
}

type memListener struct {
	net   *Memory
	addr  netip.AddrPort
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.tcp, l.addr)
		l.net.mu.Unlock()
		close(l.done)
		l.reset()
	})
	return nil
}

// reset closes the connections that nobody has accepted, as a system does when
// their listener goes.
func (l *memListener) reset() {
	for {
		select {
		case c := <-l.conns:
			c.Close()
		default:
			return
		}
	}
}

func (l *memListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// A pipe is one direction of a connection.
type pipe struct {
	mu       sync.Mutex
	change   sync.Cond
	buf      []byte
	eof      bool // the writer has closed
	deaf     bool // the reader has closed
	readBy   time.Time
	writeBy  time.Time
	wakeRead *time.Timer
	wakeSend *time.Timer
}

func newPipe() *pipe {
	p := new(pipe)
	p.change.L = &p.mu
	return p
}

func late(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.deaf:
			return 0, net.ErrClosed
		case late(p.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(p.buf) > 0:
			n := copy(b, p.buf)
			p.buf = p.buf[n:]
			p.change.Broadcast()
			return n, nil
		case p.eof:
			return 0, io.EOF
		}
		p.change.Wait()
	}
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		switch room := pipeSize - len(p.buf); {
		case p.eof:
			return n, net.ErrClosed
		case p.deaf:
			return n, syscall.EPIPE
		case late(p.writeBy):
			return n, os.ErrDeadlineExceeded
		case room == 0:
			p.change.Wait()
		default:
			k := min(room, len(b))
			p.buf = append(p.buf, b[:k]...)
			b, n = b[k:], n+k
			p.change.Broadcast()
		}
	}
	return n, nil
}

// set changes one of the pipe's deadlines.
func (p *pipe) set(by *time.Time, wake **time.Timer, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *wake != nil {
		(*wake).Stop()
		*wake = nil
	}
	*by = t
	// No timer for what is past: the race detector has been seen to crash where one
	// goes off at once in a bubble of testing/synctest (Go 1.26).
	if d := time.Until(t); d > 0 {
		*wake = time.AfterFunc(d, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.change.Broadcast()
		})
	}
	p.change.Broadcast()
}

type memConn struct {
	r, w          *pipe
	local, remote netip.AddrPort
}

func (c *memConn) Read(b []byte) (int, error)  { return c.r.read(b) }
func (c *memConn) Write(b []byte) (int, error) { return c.w.write(b) }
func (c *memConn) LocalAddr() net.Addr         { return net.TCPAddrFromAddrPort(c.local) }
func (c *memConn) RemoteAddr() net.Addr        { return net.TCPAddrFromAddrPort(c.remote) }

func (c *memConn) Close() error {
	c.SetDeadline(time.Time{}) // no timer outlives the connection
	c.r.mu.Lock()
	c.r.deaf = true
	c.r.change.Broadcast()
	c.r.mu.Unlock()
	c.w.mu.Lock()
	c.w.eof = true
	c.w.change.Broadcast()
	c.w.mu.Unlock()
	return nil
}

// CloseWrite ends what goes out.
func (c *memConn) CloseWrite() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.eof = true
	c.w.change.Broadcast()
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.r.set(&c.r.readBy, &c.r.wakeRead, t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.w.set(&c.w.writeBy, &c.w.wakeSend, t)
	return nil
}

type datagram struct {
	from netip.AddrPort
	data []byte
}

type memUDP struct {
	net   *Memory
	addr  netip.AddrPort
	inbox chan datagram
	done  chan struct{}
	once  sync.Once
}

func (m *Memory) newUDP(addr netip.AddrPort) (*memUDP, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.udp[addr] != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, syscall.EADDRINUSE)
	}
	u := &memUDP{net: m, addr: addr, inbox: make(chan datagram, 4096), done: make(chan struct{})}
	m.udp[addr] = u
	return u, nil
}

func (u *memUDP) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-u.inbox:
		return copy(b, d.data), d.from, nil
	case <-u.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (u *memUDP) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-u.done:
		return 0, net.ErrClosed
	default:
	}
	u.net.mu.Lock()
	peer := u.net.udp[to]
	u.net.mu.Unlock()
	if peer != nil {
		select {
		case peer.inbox <- datagram{u.addr, append([]byte(nil), b...)}:
		default: // a full socket loses what comes
		}
	}
	return len(b), nil
}

func (u *memUDP) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(u.addr) }

func (u *memUDP) Close() error {
	u.once.Do(func() {
		u.net.mu.Lock()
		delete(u.net.udp, u.addr)
		u.net.mu.Unlock()
		close(u.done)
	})
	return nil
}

type memUDPConn struct {
	*memUDP
	remote netip.AddrPort
}

func (c memUDPConn) Read(b []byte) (int, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil || from == c.remote {
			return n, err
		}
	}
}
func (c memUDPConn) Write(b []byte) (int, error)      { return c.WriteToUDPAddrPort(b, c.remote) }
func (c memUDPConn) RemoteAddr() net.Addr             { return net.UDPAddrFromAddrPort(c.remote) }
func (c memUDPConn) SetDeadline(time.Time) error      { return nil }
func (c memUDPConn) SetReadDeadline(time.Time) error  { return nil }
func (c memUDPConn) SetWriteDeadline(time.Time) error { return nil }
