package udp

import "golang.org/x/sys/windows"

// fatalErrnos end a carrier: nobody listens there (which Windows reports as a
// reset), or there is no way there from here.
var fatalErrnos = []error{
	windows.WSAECONNRESET, windows.WSAECONNREFUSED, windows.WSAEHOSTUNREACH,
	windows.WSAENETUNREACH, windows.WSAENETDOWN, windows.WSAEADDRNOTAVAIL,
}
