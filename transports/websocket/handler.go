package websocket

import (
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
	"github.com/godwit-net/godwit/transports/web"
)

// A Handler upgrades the requests for one path and gives all others to Fallback.
type Handler struct {
	// Fallback serves everyone else; an ordinary small page by default.
	Fallback http.Handler

	path     string
	handler  transports.Handler
	certHash [32]byte
	wg       sync.WaitGroup

	mu     sync.Mutex
	live   map[*stream.Carrier]struct{}
	closed bool
}

// NewHandler makes a Handler. certHash is the SHA-256 of the certificate that
// TLS visitors are shown.
func NewHandler(path string, h transports.Handler, certHash [32]byte) *Handler {
	return &Handler{
		Fallback: http.HandlerFunc(page),
		path:     path, handler: h, certHash: certHash,
		live: make(map[*stream.Carrier]struct{}),
	}
}

// page is what a new web server shows.
func page(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!doctype html>\n<title>Welcome</title>\n<h1>It works.</h1>\n<p>This site has no content yet.</p>\n")
}

// ServeHTTP implements http.Handler. While the first flight's packets are given
// to the transports.Handler, what it sends is collected for the response; it
// must not send more than a queue holds (512 KiB) before it returns.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	right := subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte(h.path)) == 1
	if !right || !wantsUpgrade(r) {
		h.Fallback.ServeHTTP(w, r)
		return
	}
	var first []transports.Packet
	if k, err := r.Cookie(cookie); err == nil {
		// A browser on the right path may have a cookie of its own.
		if first, err = decodeFlight(k.Value); err != nil {
			h.Fallback.ServeHTTP(w, r)
			return
		}
	}
	c := stream.New(transports.WebSocket, web.Describe(r, h.certHash), h.handler)
	if !h.add(c) {
		h.Fallback.ServeHTTP(w, r)
		return
	}
	defer h.wg.Done()
	defer h.remove(c)

	c.Probation()
	c.Deliver(first)
	if !c.Alive() {
		h.Fallback.ServeHTTP(w, r)
		c.Fail(net.ErrClosed)
		return
	}
	if frames := c.Collected(maxFlight); len(frames) > 0 {
		http.SetCookie(w, &http.Cookie{
			Name: cookie, Value: encodeFlight(frames), Path: r.URL.Path, HttpOnly: true, Secure: r.TLS != nil,
		})
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // of Origin: no browser's script can know the keys
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		c.Fail(err)
		return
	}
	m := &messages{ws: ws}
	if conn := web.Conn(r); conn != nil {
		m.raw = stream.Innermost(conn)
		stream.Tune(m.raw)
	}
	c.Run(m)
}

// wantsUpgrade checks what the library will, so that packets are not delivered
// for a request that it refuses. RFC 6455, Section 4.2.1.
func wantsUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoAtLeast(1, 1) &&
		hasToken(r.Header.Values("Connection"), "upgrade") &&
		hasToken(r.Header.Values("Upgrade"), "websocket") &&
		r.Header.Get("Sec-WebSocket-Version") == "13" &&
		len(r.Header.Get("Sec-WebSocket-Key")) == 24
}

func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

func (h *Handler) add(c *stream.Carrier) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.live[c] = struct{}{}
	h.wg.Add(1)
	return true
}

func (h *Handler) remove(c *stream.Carrier) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, c)
}

// Close ends all carriers. Requests that come later go to Fallback.
func (h *Handler) Close() error {
	h.mu.Lock()
	live := h.live
	h.live = make(map[*stream.Carrier]struct{})
	h.closed = true
	h.mu.Unlock()
	for c := range live {
		c.Close()
	}
	return nil
}
