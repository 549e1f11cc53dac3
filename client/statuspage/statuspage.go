// Package statuspage shows a running client in a browser: the path as a
// picture, each encapsulation's state, rates over time and the moves, live by
// server-sent events. It asks no other host for anything.
//
// It is served on the proxy's own port, which every web site can make a browser
// talk to. So it answers only requests whose Host is a loopback address or
// localhost, which DNS rebinding can not bring about, and takes orders only
// from its own pages.
package statuspage

import (
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godwit-net/godwit/client"
)

//go:embed page
var files embed.FS

const (
	// tick is how often a page is told how things are.
	tick = time.Second
	// maxPages bounds the pages that are kept up to date at a time.
	maxPages = 16
)

// A Source is the client that is shown.
type Source interface {
	Status() client.Status
	Move()
	Force(encapsulation string) error
}

// A Page is an http.Handler; its paths are /, /status.json, /events, /move and /force.
type Page struct {
	source Source
	mux    *http.ServeMux
	open   atomic.Int64 // event streams
}

// New makes a page about source.
func New(source Source) *Page {
	p := &Page{source: source, mux: http.NewServeMux()}
	for path, file := range map[string]struct{ name, kind string }{
		"GET /{$}":        {"page/index.html", "text/html; charset=utf-8"},
		"GET /page.css":   {"page/page.css", "text/css; charset=utf-8"},
		"GET /page.js":    {"page/page.js", "text/javascript; charset=utf-8"},
		"GET /godwit.svg": {"page/godwit.svg", "image/svg+xml"},
	} {
		body, err := files.ReadFile(file.name)
		if err != nil {
			panic(err) // embedded
		}
		p.mux.HandleFunc(path, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", file.kind)
			_, _ = rw.Write(body)
		})
	}
	p.mux.HandleFunc("GET /status.json", p.status)
	p.mux.HandleFunc("GET /events", p.events)
	p.mux.HandleFunc("POST /move", p.move)
	p.mux.HandleFunc("POST /force", p.force)
	return p
}

// ServeHTTP answers a request for the page or one of its parts.
func (p *Page) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !local(r.Host) {
		http.Error(rw, "This page is for this machine: open it by the address of the proxy, such as http://127.0.0.1:1080/.", http.StatusMisdirectedRequest)
		return
	}
	h := rw.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	// A page elsewhere may send requests here without reading the answers.
	// What changes something, or tells something, is for our own pages.
	if r.URL.Path != "/" && !ownPage(r) {
		http.Error(rw, "Not from another site.", http.StatusForbidden)
		return
	}
	p.mux.ServeHTTP(rw, r)
}

// local holds for Host values that no name service can have made up.
func local(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && a.Unmap().IsLoopback()
}

// ownPage refuses what a browser says comes from another origin. Programs that
// are no browsers say nothing; for orders they have to name the origin too.
func ownPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return r.Method == http.MethodGet || r.Method == http.MethodHead
	}
	return origin == "http://"+r.Host
}

func (p *Page) status(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(p.source.Status())
}

// move has the client register over everything now.
func (p *Page) move(rw http.ResponseWriter, _ *http.Request) {
	p.source.Move()
	_, _ = io.WriteString(rw, "ok\n")
}

// force keeps the client to the encapsulation that the query names, or lets go of it.
func (p *Page) force(rw http.ResponseWriter, r *http.Request) {
	if err := p.source.Force(r.URL.Query().Get("to")); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(rw, "ok\n")
}

// events sends the status each second until the page goes away.
func (p *Page) events(rw http.ResponseWriter, r *http.Request) {
	if p.open.Add(1) > maxPages {
		p.open.Add(-1)
		http.Error(rw, "Too many pages are open.", http.StatusServiceUnavailable)
		return
	}
	defer p.open.Add(-1)
	rw.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(rw)
	every := time.NewTicker(tick)
	defer every.Stop()
	for {
		b, err := json.Marshal(p.source.Status())
		if err != nil {
			return
		}
		_ = control.SetWriteDeadline(time.Now().Add(10 * tick))
		if _, err := fmt.Fprintf(rw, "data: %s\n\n", b); err != nil {
			return
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-every.C:
		case <-r.Context().Done():
			return
		}
	}
}
