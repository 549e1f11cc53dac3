//go:build !windows

package egress

import "syscall"

const (
	errnoNetUnreachable  = syscall.ENETUNREACH
	errnoHostUnreachable = syscall.EHOSTUNREACH
	errnoRefused         = syscall.ECONNREFUSED
	errnoTimedOut        = syscall.ETIMEDOUT
)
