//go:build unix

package config

import (
	"os"
	"syscall"
)

// lockFile waits until no other process holds path, and holds it until unlock.
// A process that dies lets go of it.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, cannotWrite(path, err)
	}
	return func() { _ = f.Close() }, nil
}
