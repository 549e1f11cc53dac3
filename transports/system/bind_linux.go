package system

import "golang.org/x/sys/unix"

// bind is SO_BINDTODEVICE of socket(7); it needs no privilege since Linux 5.7.
func bind(fd uintptr, _, iface string) error { return unix.BindToDevice(int(fd), iface) }
