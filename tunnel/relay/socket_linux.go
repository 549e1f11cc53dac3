package relay

import (
	"errors"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// drainSize is how much a socket takes in one Drain, which keeps the stream's
// lock: what comes in meanwhile waits.
const drainSize = 4 * copySize

// errFull tells that a socket takes no more for now.
var errFull = errors.New("the socket is full")

// A socket is a TCP connection of the system's, of which one goroutine makes use
// in one direction. Its calls do not wait, and Go's scheduler does not know of
// them: one that moves a whole segment takes as long as one that waits, and
// the processor would be given to another thread meanwhile.
type socket struct {
	raw    syscall.RawConn
	budget int // what Write may still take

	// What a call works in. Functions are made once, or each call would allocate
	// its own.
	buf                      []byte
	n                        int
	err                      syscall.Errno
	look, receive, send, vac func(fd uintptr) (done bool)
}

// newSocket gives nil for what is no such connection.
func newSocket(c net.Conn) *socket {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.look, s.receive, s.send, s.vac = s.lookNow, s.receiveNow, s.sendNow, s.roomNow
	return s
}

// wait waits until there is something to read and gives how much; 0 at the end.
func (s *socket) wait() (int, error) { return s.result("read", s.raw.Read(s.look)) }

func (s *socket) lookNow(fd uintptr) bool {
	var ready int32
	_, _, s.err = unix.RawSyscall(unix.SYS_IOCTL, fd, unix.SIOCINQ, uintptr(unsafe.Pointer(&ready)))
	if s.n = int(ready); s.n > 0 || s.err != 0 {
		return true
	}
	// Nothing, or the end.
	var b [1]byte
	return s.try(unix.SYS_RECVFROM, fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
}

// Read gives what is there: 0 bytes and no error if that is nothing. wait tells
// of the end.
func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.buf = b
	n, err := s.result("read", s.raw.Read(s.receive))
	s.buf = nil
	return n, err
}

func (s *socket) receiveNow(fd uintptr) bool {
	s.try(unix.SYS_RECVFROM, fd, s.buf, unix.MSG_DONTWAIT)
	return true
}

// Write takes no more than the socket does without waiting, and than is left of
// the budget; errFull if that is less than b.
func (s *socket) Write(b []byte) (int, error) {
	n := min(len(b), s.budget)
	if n == 0 {
		return 0, errFull
	}
	s.buf = b[:n]
	n, err := s.result("write", s.raw.Write(s.send))
	s.buf = nil
	s.budget -= n
	if err == nil && n < len(b) {
		err = errFull
	}
	return n, err
}

func (s *socket) sendNow(fd uintptr) bool {
	s.try(unix.SYS_SENDTO, fd, s.buf, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	return true
}

// waitRoom waits until Write takes something.
func (s *socket) waitRoom() error {
	_, err := s.result("write", s.raw.Write(s.vac))
	return err
}

func (s *socket) roomNow(fd uintptr) bool {
	// Whoever asks is told later, too: the system's word that there is room may
	// have come between Write and here.
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	s.n, s.err = 0, 0
	n, err := unix.Poll(p, 0)
	return n > 0 || err != nil && err != unix.EINTR
}

// try makes a call that moves bytes; false says that there is nothing to move.
func (s *socket) try(trap, fd uintptr, b []byte, flags uintptr) (done bool) {
	for {
		n, _, err := unix.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), flags, 0, 0)
		switch s.n, s.err = int(n), err; err {
		case 0:
			return true
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			s.n, s.err = 0, 0
			return false
		}
		s.n = 0
		return true
	}
}

// result is that of the last call, unless err kept it from being made.
func (s *socket) result(op string, err error) (int, error) {
	if err == nil && s.err != 0 {
		err = &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, s.err)}
	}
	if err != nil {
		return 0, err
	}
	return s.n, nil
}
