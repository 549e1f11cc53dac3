package client

import (
	"errors"

	"github.com/godwit-net/godwit/ipsec/ike"
)

// A RefusedError tells that the server does not take this client, or that it is
// not the server of the invitation. Trying again is of no use.
type RefusedError struct {
	Server string // HOST:PORT
	Err    error
}

// Error says why, as far as is known, and what to do.
func (e *RefusedError) Error() string {
	var r ike.Reason
	errors.As(e.Err, &r) // 0 if there is none
	switch {
	case errors.Is(e.Err, ike.ErrPeerKey):
		return e.Server + " shows another key than the one in the invitation: it was set up anew, or it is somebody else: ask its operator for a new invitation"
	case r == ike.ReasonUsed:
		return e.Server + " refuses this link: it was used already, and it is good for one use: if that was not you, tell the server's operator; ask for a new one"
	case r == ike.ReasonExpired:
		return e.Server + " refuses this client's key: by the server's clock the link expired before it was used: ask the server's operator for a new one"
	}
	return e.Server + " refuses this client's key: the invitation has expired or was withdrawn: ask the server's operator for a new one"
}

// Unwrap gives the error of the key exchange.
func (e *RefusedError) Unwrap() error { return e.Err }
