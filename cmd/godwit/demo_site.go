package main

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// bigSize is the length of the demo's download, in bytes.
const bigSize = 100 << 20

// A site is the demo's web site on a free port of loopback.
type site struct {
	addr   net.Addr
	server *http.Server
	done   chan struct{}
}

func startSite() (*site, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html>
<title>godwit demo</title>
<h1>It flies</h1>
<p>You asked for %s and came here through the tunnel; the server, not your
computer, knew where it is.</p>
<p><a href="/clock">A clock</a> that goes on through every move.
<a href="/big">A download</a> of 100 MiB.</p>
`, demoHost)
	})
	mux.HandleFunc("GET /clock", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		flush := http.NewResponseController(w)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for now := time.Now(); ; {
			if _, err := fmt.Fprintln(w, now.Format("15:04:05")); err != nil {
				return
			}
			if err := flush.Flush(); err != nil {
				return
			}
			select {
			case now = <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("GET /big", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(bigSize))
		block := make([]byte, 64<<10)
		for range bigSize / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	s := &site{addr: ln.Addr(), server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(ln) // until close
	}()
	return s, nil
}

func (s *site) close() {
	_ = s.server.Close()
	<-s.done
}
