package front

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"
)

// web is the HTTP side: CONNECT, forwarding, and the pages of this port.
type web struct {
	s         *Server
	server    *http.Server
	transport *http.Transport
	forward   *httputil.ReverseProxy
	listener  *handedOver
	served    chan struct{}  // closed when server takes no more connections
	conns     sync.WaitGroup // connections in the hands of server
	handlers  sync.WaitGroup // those that took theirs over included
}

func (s *Server) newWeb() *web {
	w := &web{
		s:        s,
		listener: &handedOver{conns: make(chan net.Conn), done: make(chan struct{})},
		served:   make(chan struct{}),
	}
	w.transport = &http.Transport{
		DialContext:         s.dial,
		DisableCompression:  true, // pass on what the server sends
		MaxIdleConnsPerHost: 8,
		MaxIdleConns:        64,
		IdleConnTimeout:     30 * time.Second,
	}
	discard := log.New(io.Discard, "", 0)
	w.forward = &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			// "When a proxy receives a request with an absolute-form of
			// request-target, the proxy MUST ignore the received Host header
			// field (if any) and instead replace it with the host information
			// of the request-target." RFC 9112, Section 3.2.2
			p.Out.Host = p.In.URL.Host
			// No Via and no X-Forwarded-For: a target is not to tell by the
			// request that it came through a tunnel, or from whom.
		},
		Transport:     w.transport,
		FlushInterval: -1, // streams go out as they come in
		ErrorLog:      discard,
		ErrorHandler:  w.fail,
	}
	w.server = &http.Server{
		Handler:           w,
		ReadHeaderTimeout: handshakeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          discard,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				w.conns.Add(1)
			case http.StateHijacked, http.StateClosed:
				w.conns.Done()
			}
		},
	}
	// Without TLS only HTTP/1 makes sense, and CONNECT needs to be hijacked.
	w.server.Protocols = new(http.Protocols)
	w.server.Protocols.SetHTTP1(true)
	go func() {
		defer close(w.served)
		_ = w.server.Serve(w.listener)
	}()
	return w
}

func (w *web) handOver(c net.Conn) {
	select {
	case w.listener.conns <- c:
	case <-w.listener.done:
		_ = c.Close()
	}
}

func (w *web) close() {
	_ = w.server.Close()
	_ = w.listener.Close()
	<-w.served
	w.handlers.Wait()
	// After an error reply net/http waits for half a second before it lets go
	// of a connection, closed or not.
	w.conns.Wait()
	w.transport.CloseIdleConnections()
}

// ServeHTTP tells the three uses of the port apart by the request-target, RFC
// 9112, Section 3.2: authority-form, absolute-form, origin-form.
func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !w.begin() {
		panic(http.ErrAbortHandler) // the documented way to drop the connection
	}
	defer w.handlers.Done()
	switch {
	case r.Method == http.MethodConnect:
		if w.authenticate(rw, r) {
			w.connect(rw, r)
		}
	case r.URL.IsAbs():
		if !w.authenticate(rw, r) {
			return
		}
		if r.URL.Scheme != "http" || r.URL.Host == "" {
			http.Error(rw, "godwit forwards http:// only; for everything else use CONNECT.", http.StatusBadRequest)
			return
		}
		ctx := r.Context()
		w.forward.ServeHTTP(rw, r.WithContext(context.WithValue(ctx, wantedKey{}, ctx)))
	default:
		w.page(rw, r)
	}
}

// begin counts a handler unless the server is closed.
func (w *web) begin() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.closed {
		return false
	}
	w.handlers.Add(1)
	return true
}

// authenticate checks Proxy-Authorization (RFC 9110, Section 11.7; RFC 7617).
func (w *web) authenticate(rw http.ResponseWriter, r *http.Request) bool {
	if w.s.c.Username == "" {
		return true
	}
	scheme, value, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	if strings.EqualFold(scheme, "Basic") {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
		user, password, ok := strings.Cut(string(b), ":")
		if err == nil && ok && w.s.authorized(user, password) {
			return true
		}
	}
	rw.Header().Set("Proxy-Authenticate", `Basic realm="godwit", charset="UTF-8"`)
	http.Error(rw, "This proxy wants a user name and a password.", http.StatusProxyAuthRequired)
	return false
}

// connect serves CONNECT, RFC 9110, Section 9.3.6.
func (w *web) connect(rw http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.URL.Host)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
		http.Error(rw, "CONNECT needs host:port.", http.StatusBadRequest)
		return
	}
	// r's context ends when the application goes away.
	remote, err := w.s.dial(r.Context(), "tcp", net.JoinHostPort(host, port))
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	c, buf, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		_ = remote.Close()
		return
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		_ = c.Close()
		_ = remote.Close()
		return
	}
	join(c, buffered(buf.Reader), remote)
}

// fail answers a request whose target could not be reached.
func (w *web) fail(rw http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // nobody is there to read it
	}
	w.s.log.LogAttrs(w.s.ctx, slog.LevelDebug, "dial failed", slog.String("target", r.URL.Host), slog.Any("err", err))
	http.Error(rw, fmt.Sprintf("godwit cannot reach %s: %v", r.URL.Host, err), httpStatus(err))
}

// page answers requests that are meant for this port itself.
func (w *web) page(rw http.ResponseWriter, r *http.Request) {
	if w.s.c.Pages != nil && r.URL.Path != "/proxy.pac" {
		w.s.c.Pages.ServeHTTP(rw, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		rw.Header().Set("Allow", "GET, HEAD")
		http.Error(rw, "This is a proxy.", http.StatusMethodNotAllowed)
		return
	}
	// The address of this very connection: the listener's may be unspecified.
	local := "127.0.0.1:1080"
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		local = a.String()
	}
	h := rw.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch r.URL.Path {
	case "/proxy.pac":
		h.Set("Content-Type", "application/x-ns-proxy-autoconfig")
		_, _ = io.WriteString(rw, w.s.c.Bypass.pac(local))
	case "/":
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(rw, page, local)
	default:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		rw.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprintf(rw, page, local)
	}
}

const page = `This is godwit's proxy port. It is not a web site.

It speaks SOCKS5 and HTTP (CONNECT and plain forwarding):

  curl --socks5-hostname %[1]s https://example.com/
  curl --proxy http://%[1]s https://example.com/

Browsers: automatic proxy configuration from http://%[1]s/proxy.pac
`

// handedOver is a listener whose connections were accepted elsewhere.
type handedOver struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *handedOver) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *handedOver) Addr() net.Addr { return noBind }
