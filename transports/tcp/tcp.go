// Package tcp carries ESP and IKE in a TCP stream (RFC 9329).
package tcp

import (
	"context"
	"errors"
	"net"

	"github.com/godwit-net/godwit/transports"
)

// New gives the client's transport.
func New() transports.Transport { return transport{} }

type transport struct{}

func (transport) Name() transports.Name { return transports.TCP }

func (transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	return nil, errors.New("not yet")
}

// A Listener makes carriers of the connections of a net.Listener.
type Listener struct{}

// NewListener serves the connections of ln, whose stream prefix is still to be
// read. Closing the Listener closes ln.
func NewListener(ln net.Listener, h transports.Handler) *Listener { return &Listener{} }

// Serve accepts until Close.
func (l *Listener) Serve() error { return errors.New("not yet") }

// Close ends Serve and all carriers.
func (l *Listener) Close() error { return nil }
