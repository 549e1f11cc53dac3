//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/godwit-net/godwit/lab/netns"
)

// serverHTTP is where the server listens in networks that pass port 80 alone.
var serverHTTP = net.JoinHostPort(netns.ServerIPv4.String(), "80")

// nothing passes no packet; only the router's own leave the network.
var nothing = netns.Firewall{Out: "counter drop", In: "counter drop"}

// An intermediary is what becomes of HTTP on port 80 in an access network: its
// router takes the connections and asks the server itself. All else that is said on
// that port is answered by a web server's 400.
type intermediary struct {
	// noUpgrade answers requests for an upgrade with 502; without it they pass, as
	// any request does.
	noUpgrade bool
	// whole has bodies of requests and responses held back until they have ended.
	whole bool
}

// start runs it on the router of the first access network.
func (i intermediary) start(t *testing.T, n *netns.Network) {
	t.Helper()
	router := n.Access[0].Router
	router.Rules(`
		table ip intermediary {
			chain prerouting {
				type nat hook prerouting priority dstnat; policy accept;
				ip daddr ` + netns.ServerIPv4.String() + ` tcp dport 80 redirect to :8080
			}
		}`)
	to := &url.URL{Scheme: "http", Host: serverHTTP}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return router.DialContext(ctx, network, serverHTTP)
	}, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			// "A proxy MUST send an appropriate Via header field in each message that
			// it forwards." RFC 9110, Section 7.6.3
			r.Out.Header.Set("Via", "1.1 school")
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	if i.whole {
		proxy.FlushInterval = 0
		proxy.ModifyResponse = func(r *http.Response) error {
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			r.Body = io.NopCloser(bytes.NewReader(b))
			r.ContentLength, r.TransferEncoding = int64(len(b)), nil
			r.Header.Set("Content-Length", strconv.Itoa(len(b)))
			return err
		}
	}
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.noUpgrade && r.Header.Get("Upgrade") != "" {
			http.Error(w, "Bad Gateway", http.StatusBadGateway)
			return
		}
		if i.whole {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
			r.ContentLength, r.TransferEncoding = int64(len(b)), nil
		}
		proxy.ServeHTTP(w, r)
	})}
	ln := router.Listen("tcp", ":8080")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln) // until it is closed
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// Nothing but HTTP on port 80 passes, by a proxy that is not asked for. TLS does not
// get through there, nor anything that is not HTTP, so http does without.
func TestPlainHTTPOnly(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.KeepPorts, Firewall: nothing},
		before: intermediary{}.start,
		listen: serverHTTP,
		fails: map[string]string{
			"udp": "registration", "tcp": "registration", "websocket": "tls",
		},
		encapsulation: "http", verdict: "intermediary",
	}.cross(t)
}

// A proxy that does not know of upgrades leaves nothing but requests and responses.
func TestNoUpgrade(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.KeepPorts, Firewall: nothing},
		before: intermediary{noUpgrade: true}.start,
		listen: serverHTTP,
		joined: withoutTLS,
		fails: map[string]string{
			"udp": "registration", "tcp": "registration", "websocket": "upgrade",
		},
		encapsulation: "http", verdict: "intermediary",
	}.cross(t)
}

// A proxy that holds whole bodies back, as those do that look for viruses, leaves
// short ones.
func TestWholeBodies(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.KeepPorts, Firewall: nothing},
		before: intermediary{noUpgrade: true, whole: true}.start,
		listen: serverHTTP,
		joined: withoutTLS,
		fails: map[string]string{
			"udp": "registration", "tcp": "registration", "websocket": "upgrade",
		},
		encapsulation: "http", verdict: "intermediary",
	}.cross(t)
}

func withoutTLS(t *testing.T, c *client) {
	t.Helper()
	changeFile(t, filepath.Join(c.dir, "client.toml"), "tls = true", "tls = false")
}

// An HTTP proxy that connects to nothing, but asks for pages, is asked for pages.
func TestSquidWithoutConnect(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{NAT: netns.KeepPorts, Firewall: onlyProxy},
		before: func(t *testing.T, n *netns.Network) {
			startSquid(t, n, `
auth_param digest program /usr/lib/squid/digest_file_auth -c DIGEST
auth_param digest realm office
acl known proxy_auth REQUIRED
http_access deny CONNECT
http_access allow known`)
		},
		joined:  func(t *testing.T, c *client) { useSquid(t, c, squidAuth) },
		proxied: true,
		fails: map[string]string{
			"udp": "registration", "tcp": "registration", "websocket": "upgrade",
		},
		encapsulation: "http", verdict: "intermediary",
	}.cross(t)
}
