//go:build netns

package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// Names of the reverse proxies' certificate: what TLS asks for, and what HTTP asks
// for. An observer sees the first one alone.
const (
	frontName  = "www.example.org"
	tunnelName = "vpn.example.org"
)

// behindProxy is a port of the server that only reverse proxies on it reach.
const behindProxy = "127.0.0.1:8443"

// webFolder has the site that a reverse proxy shows, and its certificate.
type webFolder struct {
	dir      string
	cert     string // certificate, PEM
	key      string
	combined string // both, as HAProxy wants it
	root     string // the folder of the site
}

// makeWeb makes an authority that processes of the test trust, a certificate by it,
// and a site.
func makeWeb(t *testing.T) webFolder {
	t.Helper()
	w := webFolder{dir: t.TempDir()}
	write := func(name string, text []byte) string {
		file := filepath.Join(w.dir, name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	caKey, leafKey := newKey(), newKey()
	caTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Authority of the test"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca, caPEM := sign(caTemplate, caTemplate, caKey, caKey)
	_, leafPEM := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: frontName},
		DNSNames: []string{frontName, tunnelName}, IPAddresses: []net.IP{net.ParseIP(authorityAt)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, leafKey, caKey)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	t.Setenv("SSL_CERT_FILE", write("ca.crt", caPEM))
	w.cert, w.key = write("web.crt", leafPEM), write("web.key", keyPEM)
	w.combined = write("web.pem", append(leafPEM, keyPEM...))
	w.root = filepath.Join(w.dir, "html")
	if err := os.Mkdir(w.root, 0o755); err != nil {
		t.Fatal(err)
	}
	write("html/index.html", []byte("It works.\n"))
	// The programs give up root.
	for d := w.dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// snippet gives the example of docs/using.md below a heading: the block with number
// n, with the folder's names in place of the manual's.
func (w webFolder) snippet(t *testing.T, heading string, n int, path string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/using.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n### "+heading+"\n")
	if !ok {
		t.Fatalf("docs/using.md has no heading %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n#")
	var blocks []string
	inside := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "    "):
			if !inside {
				blocks = append(blocks, "")
			}
			inside = true
			blocks[len(blocks)-1] += line[4:]
		case line == "\n" && inside:
			blocks[len(blocks)-1] += line
		default:
			inside = false
		}
	}
	if len(blocks) <= n {
		t.Fatalf("docs/using.md has %d blocks below %q", len(blocks), heading)
	}
	return strings.NewReplacer(
		"/etc/ssl/vpn.example.org.crt", w.cert, "/etc/ssl/vpn.example.org.key", w.key, "/etc/ssl/vpn.example.org.pem", w.combined,
		"/var/www/html", w.root, "/YOUR-PATH", path,
	).Replace(blocks[n])
}

// write writes a file of the folder.
func (w webFolder) write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// A front is a reverse proxy in front of the server.
type front struct {
	settings  string // of server.toml
	start     func(t *testing.T, h *netns.Host, w webFolder, path string)
	direct    bool              // TLS is godwit's own
	fails     map[string]string // as of network
	uses      string            // the encapsulation
	verdict   string
	timeless  bool   // its own pages have no Date
	elsewhere string // what a visitor sees of another path
}

const (
	believed = "trusted_proxies = [\"127.0.0.1\"]\n"
	webpki   = "verify = \"webpki\"\n"
)

// onlyWeb is what is left where the reverse proxy ends TLS.
var onlyWeb = map[string]string{"udp": "registration", "tcp": "registration"}

var fronts = map[string]front{
	"nginx": {settings: believed + webpki, start: startNginx, fails: onlyWeb, uses: "websocket", verdict: "intermediary", elsewhere: "It works."},
	"haproxy": {settings: believed + webpki, start: func(t *testing.T, h *netns.Host, w webFolder, path string) {
		startHAProxy(t, h, w, w.snippet(t, "HAProxy", 0, path))
	}, timeless: true, fails: onlyWeb, uses: "websocket", verdict: "intermediary", elsewhere: "It works."},
	"haproxy in TCP mode": {settings: believed, start: func(t *testing.T, h *netns.Host, w webFolder, path string) {
		startHAProxy(t, h, w, w.snippet(t, "HAProxy", 1, path))
	}, direct: true, fails: map[string]string{"udp": "registration"}, uses: "tcp", verdict: "none", elsewhere: "It works."},
	"caddy": {settings: believed + webpki, start: startCaddy, fails: onlyWeb, uses: "websocket", verdict: "intermediary", elsewhere: "It works."},
}

func startNginx(t *testing.T, h *netns.Host, w webFolder, path string) {
	t.Helper()
	conf := w.write(t, "nginx.conf", fmt.Sprintf(`
daemon off;
pid %s/nginx.pid;
error_log stderr notice;
worker_processes 1;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	%s
}
`, w.dir, w.snippet(t, "nginx", 0, path)))
	p := h.Start("nginx", "-e", "stderr", "-c", conf)
	if err := p.Stderr.Expect(within(t, time.Minute), "start worker process "); err != nil {
		t.Fatalf("nginx: %v", err)
	}
}

func startHAProxy(t *testing.T, h *netns.Host, w webFolder, snippet string) {
	t.Helper()
	p := h.Start("haproxy", "-W", "-f", w.write(t, "haproxy.cfg", "global\n    maxconn 100\n\n"+snippet))
	if err := p.Stderr.Expect(within(t, time.Minute), "Loading success"); err != nil {
		t.Fatalf("haproxy: %v", err)
	}
}

func startCaddy(t *testing.T, h *netns.Host, w webFolder, path string) {
	t.Helper()
	// Caddy would ask an authority for the certificate.
	site := strings.Replace(w.snippet(t, "Caddy", 0, path), "vpn.example.org {", fmt.Sprintf(":443 {\n\ttls %s %s", w.cert, w.key), 1)
	conf := w.write(t, "Caddyfile", "{\n\tadmin off\n\tauto_https off\n\tstorage file_system "+w.dir+"/caddy\n}\n"+site)
	p := h.Start("caddy", "run", "--config", conf, "--adapter", "caddyfile")
	if err := p.Stderr.Expect(within(t, time.Minute), "serving initial configuration"); err != nil {
		t.Fatalf("caddy: %v", err)
	}
}

// TestReverseProxy has the examples of docs/using.md in front of the server, each as
// it stands there. The client is known to the server by its own address, which only
// the proxy has seen.
func TestReverseProxy(t *testing.T) {
	for name, f := range fronts {
		if !*offload && name != "nginx" {
			continue // what a proxy does has nothing to do with it
		}
		t.Run(name, func(t *testing.T) {
			w := makeWeb(t)
			network{
				access:   netns.AccessConfig{Delay: lan},
				endpoint: net.JoinHostPort(netns.ServerIPv4.String(), "443"),
				listen:   behindProxy,
				settings: f.settings,
				debug:    true,
				joined: func(t *testing.T, c *client) {
					f.start(t, c.server.host, w, c.server.setting(t, "websocket_path"))
					if !f.direct {
						file := filepath.Join(c.dir, "client.toml")
						changeFile(t, file, `server_name = ""`, `server_name = "`+frontName+`"`)
						changeFile(t, file, `http_host = ""`, `http_host = "`+tunnelName+`"`)
					}
				},
				timeless: f.timeless,
				fails:    f.fails, encapsulation: f.uses, verdict: f.verdict,
				also: func(t *testing.T, n *netns.Network, c *client) {
					if got := visit(t, n.Clients[0].Host, "/"); !strings.Contains(got, f.elsewhere) {
						t.Errorf("a visitor sees %q", got)
					}
					c.Kill()
					own := n.Clients[0].Addresses("access")[0].String()
					if err := c.server.Stderr.Expect(within(t, time.Minute), "peer="+own+":"); err != nil {
						t.Errorf("the server does not know the client as %s: %v", own, err)
					}
				},
			}.cross(t)
		})
	}
}

// setting gives the text that server.toml has for a key.
func (s *server) setting(t *testing.T, key string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "server.toml"))
	if err != nil {
		t.Fatal(err)
	}
	_, value, ok := strings.Cut(string(b), "\n"+key+` = "`)
	value, _, _ = strings.Cut(value, `"`)
	if !ok {
		t.Fatalf("server.toml has no %s:\n%s", key, b)
	}
	return value
}

// visit gives what a visitor without a key sees of the server's port 443.
func visit(t *testing.T, h *netns.Host, path string) string {
	t.Helper()
	tr := &http.Transport{DialContext: h.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	at := netip.AddrPortFrom(netns.ServerIPv4, 443)
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Get("https://" + at.String() + path)
	if err != nil {
		t.Errorf("visit: %v", err)
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return string(b)
}
