package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// standard has the standard library's error for each of gVisor's that callers
// may want to tell apart. gonet passes on the text alone, so the text is the key.
var standard = map[string]error{
	(&tcpip.ErrConnectionRefused{}).String():  syscall.ECONNREFUSED,
	(&tcpip.ErrConnectionReset{}).String():    syscall.ECONNRESET,
	(&tcpip.ErrConnectionAborted{}).String():  syscall.ECONNABORTED,
	(&tcpip.ErrAborted{}).String():            syscall.ECONNABORTED,
	(&tcpip.ErrTimeout{}).String():            syscall.ETIMEDOUT,
	(&tcpip.ErrHostUnreachable{}).String():    syscall.EHOSTUNREACH,
	(&tcpip.ErrNetworkUnreachable{}).String(): syscall.ENETUNREACH,
	(&tcpip.ErrPortInUse{}).String():          syscall.EADDRINUSE,
	(&tcpip.ErrBadLocalAddress{}).String():    syscall.EADDRNOTAVAIL,
	(&tcpip.ErrNoPortAvailable{}).String():    syscall.EADDRINUSE,
	(&tcpip.ErrDuplicateAddress{}).String():   syscall.EEXIST,
	(&tcpip.ErrMessageTooLong{}).String():     syscall.EMSGSIZE,
	(&tcpip.ErrClosedForSend{}).String():      syscall.EPIPE,
}

// wrap turns gVisor's error into one that errors.Is can tell.
func wrap(err tcpip.Error) error {
	if e := standard[err.String()]; e != nil {
		return e
	}
	return errors.New(err.String())
}

// translate does the same for the errors of gonet. closed tells that this end
// has closed the connection, which then is the reason of any other error.
func translate(err error, closed bool) error {
	if err == nil {
		return nil
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		if closed && errors.Is(err, io.EOF) {
			return net.ErrClosed
		}
		return err // io.EOF alone, for io.Reader's sake
	}
	switch e := standard[op.Err.Error()]; {
	case closed:
		op.Err = net.ErrClosed
	case op.Timeout():
		op.Err = os.ErrDeadlineExceeded
	case e != nil:
		op.Err = e
	}
	return op
}
