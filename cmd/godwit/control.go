package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/config"
)

// controlSocket is the file in the folder of a client or a server by which the
// process that runs there is asked for its status: HTTP over a Unix socket, GET
// /status gives JSON, GET /metrics Prometheus' text format. To a client POST /move
// and POST /force?to=NAME give orders.
const controlSocket = "control.sock"

const (
	controlTimeout = 5 * time.Second // for one question and its answer
	maxStatus      = 16 << 20        // bytes of an answer
)

// controlled is what takes the orders: a client.
type controlled interface {
	Move()
	Force(encapsulation string) error
}

// A control answers questions about the running client or server.
type control struct {
	at     string // the address or the file
	server *http.Server
	done   chan struct{}
}

// errNotRunning: nothing answers at the control socket.
var errNotRunning = errors.New("nothing is running")

// askControl sends one request to the control socket. The error matches
// errNotRunning if no process listens there.
func askControl(ctx context.Context, socket, method, path string) ([]byte, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialControl(ctx, socket)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errNotRunning, err)
			}
			return conn, nil
		},
	}
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://godwit"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	return body, nil
}

// dialControl connects to a control socket.
func dialControl(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", socket)
}

// checkNotRunning gives an error if a process of that role, client or server,
// answers at socket.
func checkNotRunning(ctx context.Context, role, socket string) error {
	conn, err := dialControl(ctx, socket)
	if err != nil {
		return nil
	}
	_ = conn.Close()
	return &config.Error{What: "a " + role + " is running already", Where: filepath.Dir(socket), Do: "stop it first, or give this one a folder of its own with --dir"}
}

// clientControl answers for a client.
func clientControl(socket string, status func() client.Status, c controlled) (*control, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, status()) })
	mux.HandleFunc("POST /move", func(http.ResponseWriter, *http.Request) { c.Move() })
	mux.HandleFunc("POST /force", func(w http.ResponseWriter, r *http.Request) {
		if err := c.Force(r.URL.Query().Get("to")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metricsType)
		writeMetrics(w, status())
	})
	return listenControl("client", socket, mux)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // one that hangs up gets nothing
}

// listenControl answers at socket for a process of that role until close. The
// socket of a dead process is replaced.
func listenControl(role, socket string, answers http.Handler) (*control, error) {
	if err := checkNotRunning(context.Background(), role, socket); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(socket); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, &config.Error{What: "something that is not a socket is in the way", Where: socket, Do: "remove it"}
	}
	_ = os.Remove(socket) // if there is none, or it stays, Listen tells
	ln, err := net.Listen("unix", socket)
	if err == nil {
		// The folder is its owner's alone already; this is for one that is not.
		if err = os.Chmod(socket, 0o600); err != nil {
			_ = ln.Close()
		}
	}
	if err != nil {
		return nil, &config.Error{What: "cannot make the control socket: " + lastCause(err), Where: socket, Do: "choose another folder, with a shorter path, with --dir", Err: err}
	}
	return serveControl(ln, answers), nil
}

// serveControl answers on a listener until close.
func serveControl(ln net.Listener, answers http.Handler) *control {
	ctl := &control{
		at:     ln.Addr().String(),
		server: &http.Server{Handler: answers, ReadTimeout: controlTimeout, WriteTimeout: controlTimeout, IdleTimeout: controlTimeout, MaxHeaderBytes: 4096},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(ctl.done)
		_ = ctl.server.Serve(ln) // until close
	}()
	return ctl
}

// close ends the control socket and removes it. A nil control has none.
func (c *control) close() {
	if c == nil {
		return
	}
	_ = c.server.Close()
	<-c.done
}
