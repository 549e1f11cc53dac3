//go:build netns

package acceptance

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/lab/netns"
	"github.com/godwit-net/godwit/transports/portmux"
)

const (
	portalPage  = "http://login.hotel.example/terms"
	portalOwner = "login.hotel.example"
	// portalTime is how long the portal is shut at least.
	portalTime = 5 * time.Second
	// portalTries bounds the connections that the portal sees meanwhile: no client may
	// hammer at a door that is shut.
	portalTries = 100
)

// A portal answers for every web server in an access network until somebody agrees to
// its terms. Nothing else passes.
type portal struct {
	access *netns.Access
	tries  atomic.Int64
}

// ServeHTTP sends everybody to the terms.
func (p *portal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, portalPage, http.StatusFound)
}

// Accepted counts connections.
func (p *portal) accepted(_ net.Conn, s http.ConnState) {
	if s == http.StateNew {
		p.tries.Add(1)
	}
}

// startPortal shuts the first access network.
func startPortal(t *testing.T, n *netns.Network) *portal {
	t.Helper()
	p := &portal{access: n.Access[0]}
	cert, key, err := config.NewCertificate(portalOwner+":443", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	// It answers with TLS and without at every port.
	mux := portmux.New(p.access.Router.Listen("tcp", "0.0.0.0:8443"), portmux.Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}}})
	server := &http.Server{Handler: p, ConnState: p.accepted, ErrorLog: log.New(io.Discard, "", 0)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = mux.Serve() }) // until it is closed
	serving.Go(func() { _ = server.Serve(mux.HTTP()) })
	serving.Go(func() {
		for { // of RFC 9329 it knows nothing
			c, err := mux.Raw().Accept()
			if err != nil {
				return
			}
			p.tries.Add(1)
			c.Close()
		}
	})
	t.Cleanup(func() {
		server.Close()
		mux.Close()
		serving.Wait()
	})
	p.access.Router.Rules(`
		table ip portal {
			chain prerouting {
				type nat hook prerouting priority dstnat; policy accept;
				iifname "lan" tcp dport { 80, 443 } redirect to :8443
			}
		}`)
	return p
}

// open lets everything through.
func (p *portal) open() {
	p.access.Router.Rules("delete table ip portal")
	p.access.SetFirewall(netns.AllowAll)
}

// TestCaptivePortal comes to a hotel whose network is shut for five seconds. The client
// says so and where to look, its stream waits, and all goes on when the network opens.
func TestCaptivePortal(t *testing.T) {
	t.Parallel()
	ctx := within(t, 3*time.Minute)
	w := network{
		access:        netns.AccessConfig{Name: "access", NAT: netns.KeepPorts, Firewall: netns.NoTraffic, Delay: lan},
		encapsulation: "udp", verdict: "nat",
	}
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{w.access}})
	p := startPortal(t, n)
	startSite(t, n, siteAddress).gate.set(each)
	c := joinClient(t, w.startServer(t, n), n.Clients[0])
	opens := time.After(portalTime)
	c.Process = c.host.Start(godwit, "client", "run", "--dir", c.dir, "--listen", proxyAddress)
	if err := c.Stderr.Expect(ctx, "somebody else answers in the server's place"); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- c.upload(ctx, siteURL+"/upload") }()
	told := func(s status) bool {
		return s.State == "portal" && s.Portal != nil && s.Portal.Evidence != "" && s.Portal.URL == portalPage
	}
	c.await(t, ctx, "portal, and its page", told)
	for what, want := range map[string][]string{
		"status": {"portal", portalPage},
		"doctor": {portalPage, portalOwner, "can use nothing here", "fails at: tls", "fails at: request"},
	} {
		o := command(t, ctx, c.host.Host, what, "--dir", c.dir)
		for _, text := range want {
			if !strings.Contains(o.stdout, text) {
				t.Errorf("%s does not say %q: %s%s", what, text, o.stdout, o.stderr)
			}
		}
		if what == "doctor" && o.code == 0 {
			t.Error("doctor: nothing passes, and the exit code is 0")
		}
	}
	select {
	case <-opens:
	case <-ctx.Done():
	}
	select {
	case err := <-waiting:
		t.Fatalf("a stream does not wait while the network is shut: %v", err)
	default:
	}
	if tries := p.tries.Load(); tries > portalTries {
		t.Errorf("the portal saw %d connections", tries)
	} else {
		t.Logf("the portal saw %d connections", tries)
	}
	p.open()
	if err := <-waiting; err != nil {
		t.Fatalf("the stream that waited: %v", err)
	}
	if err := c.Stdout.Expect(ctx, "ready"); err != nil {
		t.Error(err)
	}
	if err := c.fetch(ctx, siteURL+"/stream?size=50000000"); err != nil {
		t.Errorf("download: %v", err)
	}
	c.await(t, ctx, "connected by udp, and no word of a portal", func(s status) bool {
		return s.State == "connected" && s.Path.Encapsulation == w.encapsulation && s.Path.Verdict == w.verdict && s.Portal == nil
	})
	w.wantDiagnosis(t, ctx, c)
}

// portalStatus is what status tells of a portal.
type portalStatus struct{ Evidence, URL string }
