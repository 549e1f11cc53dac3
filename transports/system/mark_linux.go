package system

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Marked gives sockets a firewall mark, SO_MARK of socket(7), so that rules
// (ip-rule(8)) can lead their packets another way than all others. It needs
// CAP_NET_ADMIN; without it there are no sockets, as they might go where they
// must not.
func Marked(mark uint32) Option {
	return WithControl(func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) }); cerr != nil {
			return cerr
		}
		if err != nil {
			return fmt.Errorf("mark a socket: %w", err)
		}
		return nil
	})
}
