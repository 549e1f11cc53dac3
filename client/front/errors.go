package front

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/things-go/go-socks5/statute"
)

// What a Dialer's errors match, so that applications learn the reason.
var (
	ErrNotAllowed         = errors.New("not allowed by the server's rules")
	ErrNetworkUnreachable = errors.New("network unreachable")
	ErrHostUnreachable    = errors.New("host unreachable")
	ErrRefused            = errors.New("connection refused")
	// ErrTimeout: nothing answered in time. Errors that match
	// context.DeadlineExceeded and timeouts of package net count as this too.
	ErrTimeout = errors.New("timed out")
)

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &ne) && ne.Timeout()
}

// replyCode maps a Dialer's error to the REP field of RFC 1928, Section 6.
func replyCode(err error) uint8 {
	switch {
	case err == nil:
		return statute.RepSuccess
	case errors.Is(err, ErrNotAllowed):
		return statute.RepRuleFailure
	case errors.Is(err, ErrNetworkUnreachable):
		return statute.RepNetworkUnreachable
	case errors.Is(err, ErrHostUnreachable):
		return statute.RepHostUnreachable
	case errors.Is(err, ErrRefused):
		return statute.RepConnectionRefused
	case isTimeout(err):
		// The RFC has no code for silence; this one comes closest, and
		// clients print it as a timeout.
		return statute.RepTTLExpired
	}
	return statute.RepServerFailure
}

// httpStatus maps a Dialer's error to the status of RFC 9110, Section 15.
func httpStatus(err error) int {
	switch {
	case errors.Is(err, ErrNotAllowed):
		return http.StatusForbidden
	case isTimeout(err):
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}
