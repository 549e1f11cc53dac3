package websocket

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/web"
)

// ListenerOptions are the options of NewListener.
type ListenerOptions struct {
	Path     string // of the upgrade request; "/" by default
	Handler  transports.Handler
	CertHash [32]byte     // SHA-256 of the certificate that TLS visitors are shown
	Fallback http.Handler // for all other requests; an ordinary small page by default
	Logger   *slog.Logger // nil discards
}

// Limits of the HTTP server, for visitors that nobody knows yet.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 60 * time.Second
	maxHeader     = 16 << 10
)

type listener struct {
	ln      net.Listener
	handler *Handler
	server  *http.Server
}

// NewListener serves HTTP on the connections of ln, plain ones and *tls.Conn
// (or others that have its ConnectionState method). Closing it closes ln.
func NewListener(ln net.Listener, o ListenerOptions) transports.Listener {
	if o.Path == "" {
		o.Path = "/"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := NewHandler(o.Path, o.Handler, o.CertHash)
	if o.Fallback != nil {
		h.Fallback = o.Fallback
	}
	return &listener{ln: ln, handler: h, server: &http.Server{
		Handler:           h,
		ConnContext:       web.WithConn,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		// Not nil: no HTTP/2, which has no Upgrade.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}}
}

// Serve implements transports.Listener. It returns when all carriers have ended.
func (l *listener) Serve() error {
	err := l.server.Serve(l.ln)
	l.Close()
	l.handler.wg.Wait()
	if err == http.ErrServerClosed {
		err = net.ErrClosed
	}
	return fmt.Errorf("accept over websocket: %w", err)
}

// Close implements transports.Listener.
func (l *listener) Close() error {
	err := l.server.Close()
	l.handler.Close()
	l.ln.Close() // the server only knows it once Serve was called
	return err
}
