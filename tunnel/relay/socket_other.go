//go:build !linux

package relay

import (
	"errors"
	"net"
)

const drainSize = 0

var errFull = errors.New("the socket is full")

// A socket is used on Linux alone.
type socket struct{ budget int }

func newSocket(net.Conn) *socket { return nil }

func (*socket) wait() (int, error)        { return 0, errors.ErrUnsupported }
func (*socket) waitRoom() error           { return errors.ErrUnsupported }
func (*socket) Read([]byte) (int, error)  { return 0, errors.ErrUnsupported }
func (*socket) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }
