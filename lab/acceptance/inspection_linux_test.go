//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// knownName is the only one that the inspection lets TLS ask for.
const knownName = "www.example.org"

// inspect has an access network's router look into every TCP connection to port
// 443, and reset those that are not TLS for the known name. Nothing else passes.
func inspect(t *testing.T, n *netns.Network) {
	t.Helper()
	router := n.Access[0].Router
	router.Rules(`
		table ip inspection {
			chain prerouting {
				type nat hook prerouting priority dstnat; policy accept;
				iifname "lan" tcp dport 443 redirect to :8443
			}
		}`)
	router.Serve("0.0.0.0:8443", func(in net.Conn) {
		seen, name := helloOf(in)
		if name != knownName {
			reset(in)
			return
		}
		out, err := router.DialContext(context.Background(), "tcp", net.JoinHostPort(netns.ServerIPv4.String(), "443"))
		if err != nil {
			reset(in)
			return
		}
		defer out.Close()
		if _, err := out.Write(seen); err != nil {
			return
		}
		var way sync.WaitGroup
		way.Go(func() {
			_, _ = io.Copy(out, in)
			out.Close()
		})
		_, _ = io.Copy(in, out)
		in.Close()
		way.Wait()
	})
}

// reset ends a connection as a firewall does.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

var errSeen = errors.New("the hello has been seen")

// helloOf reads a ClientHello, and gives what it has read and the name that it asks
// for; no name for anything else.
func helloOf(c net.Conn) (seen []byte, name string) {
	var buf bytes.Buffer
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	_ = tls.Server(overheard{c, io.TeeReader(c, &buf)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, errSeen
	}}).Handshake() // fails: errSeen, or no TLS
	_ = c.SetReadDeadline(time.Time{})
	return buf.Bytes(), name
}

// overheard is a connection of which nothing is answered.
type overheard struct {
	net.Conn
	r io.Reader
}

func (o overheard) Read(b []byte) (int, error)  { return o.r.Read(b) }
func (o overheard) Write(b []byte) (int, error) { return len(b), nil }

// TestInspection: where all but TLS for a known name is reset, the client asks for
// that name.
func TestInspection(t *testing.T) {
	t.Parallel()
	network{
		access: netns.AccessConfig{Delay: lan, Firewall: netns.NoTraffic},
		before: inspect,
		joined: func(t *testing.T, c *client) {
			changeFile(t, filepath.Join(c.dir, "client.toml"), `server_name = ""`, `server_name = "`+knownName+`"`)
		},
		fails:         map[string]string{"udp": "registration", "tcp": "registration"},
		encapsulation: "websocket", verdict: "napt",
		also: func(t *testing.T, n *netns.Network, c *client) {
			for what, say := range map[string]func(net.Conn) error{
				"RFC 9329": func(c net.Conn) error { _, err := io.WriteString(c, "IKETCP\x00\x05esp"); return err },
				"plain HTTP": func(c net.Conn) error {
					_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+knownName+"\r\n\r\n")
					return err
				},
				"another name": func(c net.Conn) error { return tls.Client(c, &tls.Config{ServerName: "vpn.example.org"}).Handshake() },
				"no name":      func(c net.Conn) error { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake() },
			} {
				conn, err := c.host.DialContext(within(t, time.Minute), "tcp", net.JoinHostPort(netns.ServerIPv4.String(), "443"))
				if err != nil {
					t.Fatal(err)
				}
				if err = say(conn); err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s is not reset: %v", what, err)
				}
				conn.Close()
			}
		},
	}.cross(t)
}

// TestStealthyServer: a client as it comes finds a server that answers no strangers,
// and a visitor finds a web site.
func TestStealthyServer(t *testing.T) {
	t.Parallel()
	network{
		access:        netns.AccessConfig{NAT: netns.RandomPorts, Delay: lan},
		settings:      "stealth = true\n",
		encapsulation: "udp", verdict: "napt",
		also: func(t *testing.T, n *netns.Network, c *client) {
			if got := visit(t, n.Clients[0].Host, "/"); !strings.Contains(got, "It works.") {
				t.Errorf("a visitor sees %q", got)
			}
			n.Access[0].SetFirewall(netns.TCPOnly)
			c.wantBothWays(t, within(t, time.Minute), siteURL)
		},
	}.cross(t)
}
