package config

import (
	"errors"
	"syscall"
	"time"
)

// lockFile waits until no other process holds path, and holds it until unlock.
// A process that dies lets go of it.
func lockFile(path string) (unlock func(), err error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	const sharingViolation = syscall.Errno(32) // ERROR_SHARING_VIOLATION
	for {
		// Share mode 0: nobody else can open it meanwhile.
		h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
		if err == nil {
			return func() { _ = syscall.CloseHandle(h) }, nil
		}
		if !errors.Is(err, sharingViolation) {
			return nil, cannotWrite(path, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
