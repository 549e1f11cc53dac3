package http

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/proxy"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/web"
)

// TestForward: an HTTP proxy that connects to nothing is asked for pages, by whom it
// wants to know.
func TestForward(t *testing.T) {
	for name, tt := range map[string]struct {
		url  string
		want error
	}{
		"known":          {"http://ali:secret@192.0.2.9:3128", nil},
		"wrong password": {"http://ali:guess@192.0.2.9:3128", proxy.ErrCredentials},
		"nobody":         {"http://192.0.2.9:3128", proxy.ErrCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, near, far := transporttest.NewMemory(), transporttest.NewRecorder(), transporttest.NewRecorder()
				_, stop := suite(Options{}, nil).Serve(t, n, behind, far)
				defer stop()
				defer pagesOnly(t, n)()
				u, err := proxy.Parse(tt.url)
				if err != nil {
					t.Fatal(err)
				}
				// TLS needs CONNECT, so it does not come about.
				plain := New(Options{Options: web.Options{TLS: true, Path: path}, Plain: true})
				c, err := proxy.Wrap(plain, u, proxy.Options{}).Dial(t.Context(), transports.Opening{
					Network: n, Remote: behind, Handler: near,
					First: func(d transports.Description) []transports.Packet {
						if d.Proxy != "192.0.2.9:3128" || d.Destination != behind {
							t.Errorf("first flight for %+v", d)
						}
						return packets(1, 1)
					},
				})
				if !errors.Is(err, tt.want) {
					t.Errorf("dialled with %v", err)
				}
				if err != nil {
					synctest.Wait()
					return
				}
				far.Take(1)
				if err := far.Carrier().Send(packets(50, 2)); err != nil {
					t.Error(err)
				}
				if err := c.Send(packets(50, 2)); err != nil {
					t.Error(err)
				}
				near.Take(50)
				far.Take(50)
				c.Close()
				synctest.Wait()
			})
		})
	}
}

// pagesOnly runs a proxy that does not know CONNECT and asks for a password.
func pagesOnly(t *testing.T, n *transporttest.Memory) (stop func()) {
	ln, err := n.ListenTCP(t.Context(), netip.MustParseAddrPort("192.0.2.9:3128"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return n.DialTCP(ctx, netip.Addr{}, netip.MustParseAddrPort(address))
	}}
	pages := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: time.Nanosecond, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite:        func(*httputil.ProxyRequest) {}, // the request says where to
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ModifyResponse: flushedByTimer,
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodConnect:
			http.Error(w, "no", http.StatusMethodNotAllowed)
		case r.Header.Get("Proxy-Authorization") != "Basic YWxpOnNlY3JldA==":
			w.Header().Set("Proxy-Authenticate", `Basic realm="office"`)
			http.Error(w, "who?", http.StatusProxyAuthRequired)
		case r.URL.Host == "":
			http.Error(w, "not in the absolute form", http.StatusBadRequest)
		default:
			pages.ServeHTTP(w, r)
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	return func() {
		server.Close()
		transport.CloseIdleConnections()
		<-done
	}
}
