//go:build !linux && !darwin && !windows

package system

import "errors"

// bind is not possible here; the source address has to do.
func bind(uintptr, string, string) error { return errors.ErrUnsupported }
