//go:build !windows

package udp

import "syscall"

// fatalErrnos end a carrier: nobody listens there, or there is no way there
// from here.
var fatalErrnos = []error{
	syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EBADF,
}
