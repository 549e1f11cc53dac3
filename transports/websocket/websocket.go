// Package websocket carries ESP and IKE in binary messages of a WebSocket (RFC
// 6455), over TLS 1.3 or over plain HTTP. Each message holds one or more packets
// framed as in RFC 9329.
package websocket

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/godwit-net/godwit/transports"
)

// Options of the client's end. The zero value of a field means the default.
type Options struct {
	TLS        bool
	ServerName string         // for TLS; the host of Host by default
	Host       string         // the Host header; ServerName, or else the server's address, by default
	Path       string         // "/" by default
	CertHash   [32]byte       // SHA-256 of the server's DER certificate; zero: the Web PKI decides
	RootCAs    *x509.CertPool // for the Web PKI; nil means the system's
}

// CertError says that the server showed a certificate that is not trusted.
type CertError struct {
	Seen [32]byte // SHA-256 of the certificate shown, in DER
	Err  error    // what the Web PKI has against it; nil when it is not the pinned one
}

func (e *CertError) Error() string { return fmt.Sprintf("certificate %x", e.Seen) }
func (e *CertError) Unwrap() error { return e.Err }

// StatusError says that the upgrade was answered with something else than 101.
type StatusError struct {
	Code     int    // HTTP status
	Location string // of a redirect
}

func (e *StatusError) Error() string { return fmt.Sprintf("HTTP status %d", e.Code) }

// New gives the client's transport.
func New(o Options) transports.Transport { return &transport{o} }

type transport struct{ opts Options }

func (t *transport) Name() transports.Name { return transports.WebSocket }

func (t *transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	return nil, errors.New("not yet")
}

// A Handler upgrades the requests for one path and gives all others to Fallback.
type Handler struct {
	Fallback http.Handler // an ordinary small page by default
}

// NewHandler makes a Handler. certHash is the SHA-256 of the certificate that
// TLS visitors are shown.
func NewHandler(path string, h transports.Handler, certHash [32]byte) *Handler { return &Handler{} }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {}

// Close ends all carriers.
func (h *Handler) Close() error { return nil }

// ListenerOptions are the options of NewListener.
type ListenerOptions struct {
	Path     string // of the upgrade request; "/" by default
	Handler  transports.Handler
	CertHash [32]byte     // SHA-256 of the certificate that TLS visitors are shown
	Fallback http.Handler // for all other requests; an ordinary small page by default
	Logger   *slog.Logger // nil discards
}

// NewListener serves HTTP on the connections of ln, plain ones and those that
// are (or wrap) a *tls.Conn.
func NewListener(ln net.Listener, o ListenerOptions) transports.Listener { return nil }
