// Package portmux tells apart what arrives on one TCP port by its first bytes.
package portmux

import (
	"crypto/tls"
	"errors"
	"net"
)

// A Mux hands the connections of one listener to the listeners Raw and HTTP.
type Mux struct{}

// New makes a Mux. Without a tlsConfig, TLS visitors are closed.
func New(ln net.Listener, tlsConfig *tls.Config) *Mux { return &Mux{} }

// Raw gives the streams that begin with "IKETCP", which is still to be read.
func (m *Mux) Raw() net.Listener { return nil }

// HTTP gives plain HTTP connections, and TLS connections as *tls.Conn with the
// handshake done.
func (m *Mux) HTTP() net.Listener { return nil }

// Serve runs until Close or until the listener fails.
func (m *Mux) Serve() error { return errors.New("not yet") }

// Close ends Serve, the listeners and the visitors not yet handed over.
func (m *Mux) Close() error { return nil }
