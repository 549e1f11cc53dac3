package egress

import "golang.org/x/sys/windows"

// Sockets fail with these; the names of package syscall are inventions there.
const (
	errnoNetUnreachable  = windows.WSAENETUNREACH
	errnoHostUnreachable = windows.WSAEHOSTUNREACH
	errnoRefused         = windows.WSAECONNREFUSED
	errnoTimedOut        = windows.WSAETIMEDOUT
)
