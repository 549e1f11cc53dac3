package main

import (
	"errors"
	"runtime"
	"strings"
	"syscall"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/transports/esp"
)

// Windows has error numbers of its own for these.
const (
	wsaEACCES        = syscall.Errno(10013)
	wsaEADDRINUSE    = syscall.Errno(10048)
	wsaEADDRNOTAVAIL = syscall.Errno(10049)
)

// isErrno tells whether err comes from one of the system's errors; windows is
// its number there.
func isErrno(err error, unix, windows syscall.Errno) bool {
	return errors.Is(err, unix) || runtime.GOOS == "windows" && errors.Is(err, windows)
}

// listenError says what to do about a socket that could not be bound. setting
// is where the address is chosen.
func listenError(err error, address, setting string) error {
	e := &config.Error{What: "cannot listen: " + lastCause(err), Where: address, Do: "choose another address with " + setting, Err: err}
	switch {
	case errors.Is(err, esp.ErrRight):
		e.What = "the encapsulation esp needs the right to raw sockets"
		e.Do = "run with the capability CAP_NET_RAW, or take esp out of encapsulations in server.toml"
	case isErrno(err, syscall.EADDRINUSE, wsaEADDRINUSE):
		e.What = "the port is in use"
		e.Do = "stop the program that uses it, or choose another port with " + setting
	case isErrno(err, syscall.EACCES, wsaEACCES):
		e.What = "this port needs more rights"
		e.Do = "choose a port above 1023 with " + setting + ", or run with the capability CAP_NET_BIND_SERVICE"
	case isErrno(err, syscall.EADDRNOTAVAIL, wsaEADDRNOTAVAIL):
		e.What = "this host does not have the address"
		e.Do = "choose another address with " + setting
	}
	return e
}

// lastCause is the text of the innermost error.
func lastCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return strings.Join(strings.Fields(err.Error()), " ")
		}
		err = next
	}
}
