package ike

import (
	"errors"
	"fmt"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// NotifyType is the type of a Notify payload; its String is the name of RFC
// 7296, as in AUTHENTICATION_FAILED.
type NotifyType = message.NotifyType

// Errors that end a Session, in Closed.Err.
var (
	// ErrTimeout tells that the peer did not answer for Config.RetransmitFor.
	ErrTimeout = errors.New("the peer does not answer")
	// ErrPeerKey tells that the peer showed another key than the pinned one.
	ErrPeerKey = errors.New("the peer's key is not the pinned one")
	// ErrAuthentication tells that the peer could not prove its identity.
	ErrAuthentication = errors.New("the peer did not prove its identity")
	// ErrLost tells that the peer has lost the IKE SA, as it does when it is
	// started anew, and that it is the same peer which says so (RFC 6290).
	ErrLost = errors.New("the peer was started anew and has lost the IKE SA")
	// ErrReplaced tells that a newer IKE SA of the same peer took over.
	ErrReplaced = errors.New("replaced by a newer IKE SA of the same peer")
)

// A NotifyError is an error that the peer sent us.
type NotifyError struct{ Type NotifyType }

// Error names the notification.
func (e *NotifyError) Error() string { return fmt.Sprintf("the peer answered %v", e.Type) }

// A RefusalError is an error that we sent to the peer.
type RefusalError struct {
	Type NotifyType
	Err  error // why; it never leaves this end

	data []byte // of the notification
	spi  []byte // of the Child SA it is about
}

// Error names the notification and the reason.
func (e *RefusalError) Error() string { return fmt.Sprintf("refused with %v: %v", e.Type, e.Err) }

// Unwrap gives the reason.
func (e *RefusalError) Unwrap() error { return e.Err }

func (e *RefusalError) payload() message.Payload {
	n := &message.Notify{NotifyType: e.Type, Data: e.data, SPI: e.spi}
	if e.spi != nil {
		n.Protocol = message.ProtocolESP
	}
	return n
}

// refuse makes a RefusalError.
func refuse(t NotifyType, format string, args ...any) *RefusalError {
	return &RefusalError{Type: t, Err: fmt.Errorf(format, args...)}
}
