package egress

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/things-go/go-socks5/statute"
)

// What errors of this package match; a Base may return errors that match them
// too, or the system's own.
var (
	ErrNotAllowed         = errors.New("not allowed")
	ErrNetworkUnreachable = errors.New("network unreachable")
	ErrHostUnreachable    = errors.New("host unreachable")
	ErrRefused            = errors.New("connection refused")
	// ErrTimeout: nothing answered in time. Errors that match
	// context.DeadlineExceeded and timeouts of package net count as this too.
	ErrTimeout = errors.New("timed out")
)

// replyCode maps an error to the REP field of RFC 1928, Section 6.
func replyCode(err error) uint8 {
	var ne net.Error
	is := func(target error, number syscall.Errno) bool {
		return errors.Is(err, target) || errors.Is(err, number)
	}
	switch {
	case err == nil:
		return statute.RepSuccess
	case errors.Is(err, ErrNotAllowed):
		return statute.RepRuleFailure
	case is(ErrNetworkUnreachable, errnoNetUnreachable):
		return statute.RepNetworkUnreachable
	case is(ErrHostUnreachable, errnoHostUnreachable):
		return statute.RepHostUnreachable
	case is(ErrRefused, errnoRefused):
		return statute.RepConnectionRefused
	case is(ErrTimeout, errnoTimedOut), errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		// The RFC has no code for silence; this one comes closest.
		return statute.RepTTLExpired
	}
	return statute.RepServerFailure
}
