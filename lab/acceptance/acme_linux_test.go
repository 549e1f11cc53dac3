//go:build netns

package acceptance

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// authorityAt is where the authority has its ACME service, on the core.
const authorityAt = "198.51.100.1"

// startAuthority runs Let's Encrypt's own test server on the core, and gives its
// root certificate. It validates by TLS-ALPN-01 at port 443 of the name.
func startAuthority(t *testing.T, n *netns.Network, w webFolder) (root []byte) {
	t.Helper()
	program := filepath.Join(w.dir, "pebble")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/letsencrypt/pebble/v2/cmd/pebble").CombinedOutput(); err != nil {
		t.Fatalf("build pebble: %v: %s", err, out)
	}
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": authorityAt + ":14000", "managementListenAddress": authorityAt + ":15000",
		"certificate": w.cert, "privateKey": w.key, "httpPort": 80, "tlsPort": 443, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	startDNS(t, n.Core, tunnelName+".", netns.ServerIPv4)
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	p := n.Core.Start(program, "-config", w.write(t, "pebble.json", string(conf)))
	if err := p.Stdout.Expect(within(t, time.Minute), "ACME directory available"); err != nil {
		t.Fatalf("pebble: %v", err)
	}
	tr := &http.Transport{DialContext: n.Core.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get("https://" + authorityAt + ":15000/roots/0")
		if err == nil {
			defer resp.Body.Close()
			if root, err = io.ReadAll(io.LimitReader(resp.Body, 1<<16)); err == nil {
				return root
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the authority's root: %v", err)
		}
	}
}

// TestACME: the server gets a certificate by ACME on its one port, shows it to
// visitors and clients, and has it after a restart without the authority.
func TestACME(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	w := makeWeb(t)
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{{Name: "access", NAT: netns.KeepPorts}}})
	startSite(t, n, siteAddress).gate.set(each)
	root := startAuthority(t, n, w)
	startDNS(t, n.Clients[0].Host, tunnelName+".", netns.ServerIPv4)
	s := network{
		endpoint: tunnelName + ":443", listen: netns.ServerIPv4.String() + ":443",
		encapsulations: []string{"websocket"},
		settings:       fmt.Sprintf("acme_hosts = [%q]\nacme_directory = \"https://%s:14000/dir\"\n", tunnelName, authorityAt),
	}.startServer(t, n)

	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		t.Fatalf("the authority's root is %q", root)
	}
	visit := func(when string) {
		t.Helper()
		conn, err := n.Clients[0].DialContext(ctx, "tcp", net.JoinHostPort(netns.ServerIPv4.String(), "443"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := tls.Client(conn, &tls.Config{ServerName: tunnelName, RootCAs: roots}).HandshakeContext(ctx); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	visit("the first visitor")
	cache := filepath.Join(s.dir, "acme")
	info, err := os.Stat(cache)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of certificates: %v, %v", info, err)
	}
	if entries, err := os.ReadDir(cache); err != nil || len(entries) < 2 {
		t.Errorf("it holds %v, %v", entries, err)
	}

	t.Setenv("SSL_CERT_FILE", w.write(t, "root.crt", string(root)))
	c := joinClient(t, s, n.Clients[0])
	changeFile(t, filepath.Join(c.dir, "client.toml"), `encapsulations = ["udp", "tcp", "websocket", "http"]`, `encapsulations = ["websocket"]`)
	c.run(t)
	if err := c.fetch(ctx, siteURL+fmt.Sprintf("/stream?size=%d", each)); err != nil {
		t.Error(err)
	}
	at := c.await(t, ctx, "connected by websocket", func(s status) bool { return s.State == "connected" })
	if at.Path.Verdict != "nat" {
		t.Errorf("%s", at)
	}
	var found struct {
		TLSError, Interceptor string
		Encapsulations        []struct{ Passes bool }
	}
	if err := json.Unmarshal([]byte(must(t, c.host.Host, "doctor", "--json", "--dir", c.dir)), &found); err != nil {
		t.Fatal(err)
	}
	if found.Interceptor != "" || len(found.Encapsulations) != 1 || !found.Encapsulations[0].Passes {
		t.Errorf("doctor says %+v", found)
	}

	s.Kill()
	n.Core.Rules("table inet gone { chain input { type filter hook input priority 0; tcp dport 14000 reject with tcp reset; }; }")
	s.Process = start(t, s.host, "server", "run", "--dir", s.dir)
	visit("after a restart, without the authority")
}
