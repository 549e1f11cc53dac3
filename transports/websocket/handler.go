package websocket

import (
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
	"github.com/godwit-net/godwit/transports/web"
)

// A Handler upgrades the requests for one path. It is a part of a web server that
// answers all others.
type Handler struct {
	// Strict leaves requests alone whose first flight does not show that they are no
	// stranger's; see transports.Admitting. Set it before the Handler is used.
	Strict bool

	path    string
	handler transports.Handler

	mu     sync.Mutex
	live   map[*stream.Carrier]struct{}
	closed bool
}

// NewHandler makes a Handler for a path that begins with a slash.
func NewHandler(path string, h transports.Handler) *Handler {
	return &Handler{path: path, handler: h, live: make(map[*stream.Carrier]struct{})}
}

// ServeMount answers an upgrade request with a first flight that makes sense, and
// returns true when its carrier has ended. It gives false, and has done nothing,
// for any other request. While the first flight's packets are given to the
// transports.Handler, what it sends is collected for the response; it
// must not send more than a queue holds (512 KiB) before it returns.
func (h *Handler) ServeMount(w http.ResponseWriter, r *http.Request, v web.Visit) bool {
	right := subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte(h.path)) == 1
	if !right || !wantsUpgrade(r) {
		return false
	}
	var first []transports.Packet
	if k, err := r.Cookie(cookie); err == nil {
		// A browser on the right path may have a cookie of its own.
		if first, err = decodeFlight(k.Value); err != nil {
			return false
		}
	}
	c := stream.New(transports.WebSocket, v.Description, h.handler)
	if !h.add(c) {
		return false
	}
	defer h.remove(c)

	c.Probation()
	c.Deliver(first)
	if !c.Alive() || h.Strict && !c.Admitted() {
		c.Fail(net.ErrClosed)
		return false
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
		return true // the library has answered
	}
	m := &messages{ws: ws}
	if v.Conn != nil {
		m.raw = stream.Innermost(v.Conn)
		stream.Tune(m.raw)
	}
	c.Run(m)
	return true
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
	return true
}

func (h *Handler) remove(c *stream.Carrier) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, c)
}

// Close ends all carriers. Requests that come later are not the Handler's.
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
