//go:build netns

package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/lab/netns"
)

// proxyAddress is where the client listens, in a namespace of its own.
const proxyAddress = "127.0.0.1:1080"

const echoPort = "7"

// gatewayNetwork is a network whose server routes between its clients' inner
// addresses and the target, which echoes.
func gatewayNetwork(t *testing.T, c netns.Config) *netns.Network {
	t.Helper()
	t.Parallel() // each test has namespaces of its own, and waits much
	if len(c.Access) == 0 {
		c.Access = []netns.AccessConfig{{Name: "home"}}
	}
	n := netns.New(t, c)
	n.Server.Forward()
	n.Target.Route(netip.MustParsePrefix(pool4), netip.MustParseAddr("192.0.2.1"), "eth0", 0)
	echoTarget(n)
	return n
}

// echoTarget makes the target send back what it gets by TCP and UDP.
func echoTarget(n *netns.Network) {
	n.Target.Serve(bulkAddress, serveBulk)
	n.Target.Serve(echoAddress, func(c net.Conn) { _, _ = io.Copy(c, c) })
	echoUDP(n.Target.ListenPacket("udp", echoAddress))
}

// echoUDP sends datagrams back until the socket is closed.
func echoUDP(pc net.PacketConn) {
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(b[:n], from)
		}
	}()
}

// A client is a godwit client of a gateway.
type client struct {
	*netns.Process
	t      *testing.T
	host   *netns.Host
	access *netns.Access // its network; set where a test needs it
	dir    string
}

// newClient writes a client's folder: the lines of the table [gateway] but for
// the server's, and files beside.
func newClient(t *testing.T, h *netns.Host, lines string, files map[string]string) *client {
	t.Helper()
	c := &client{t: t, host: h, dir: t.TempDir()}
	c.write("client.toml", "listen = \""+proxyAddress+"\"\nlog_level = \"debug\"\n[gateway]\nserver = \""+netns.ServerIPv4.String()+"\"\n"+lines)
	for name, text := range files {
		c.write(name, text)
	}
	return c
}

func (c *client) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// edit replaces text in the client's settings.
func (c *client) edit(from, to string) {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "client.toml"))
	if err != nil || !strings.Contains(string(b), from) {
		c.t.Fatalf("%v: no %q in %q", err, from, b)
	}
	c.write("client.toml", strings.Replace(string(b), from, to, 1))
}

// pskClient is a client with the shared key.
func pskClient(t *testing.T, h *netns.Host) *client {
	t.Helper()
	return newClient(t, h, "identity = \""+gatewayName+"\"\nlocal = \""+clientName+"\"\npsk_file = \"psk\"\n", map[string]string{"psk": sharedKey + "\n"})
}

// run runs the client until it is ready.
func (c *client) run(args ...string) {
	c.t.Helper()
	c.Process = c.host.Start(godwit, append([]string{"client", "run", "--dir", c.dir}, args...)...)
	if err := c.Stdout.Expect(within(c.t, time.Minute), "ready"); err != nil {
		c.t.Fatalf("godwit client run: %v", err)
	}
}

// fails runs the client, which has to give up, and gives its last line.
func (c *client) fails() string {
	c.t.Helper()
	c.Process = c.host.Start(godwit, "client", "run", "--dir", c.dir)
	code, err := c.Wait(within(c.t, time.Minute))
	if err != nil || code == 0 {
		c.t.Fatalf("exit code %d, %v", code, err)
	}
	lines := strings.Split(strings.TrimSpace(c.Stderr.String()), "\n")
	return lines[len(lines)-1]
}

// DialContext connects through the client's SOCKS5 proxy.
func (c *client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d, err := proxy.SOCKS5("tcp", proxyAddress, nil, c.host)
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, network, address)
}

// status is the part of godwit status --json that the tests look at.
type status struct {
	KeyExchange string   `json:"key_exchange"`
	State       string   `json:"state"`
	Inner       []string `json:"inner"`
	Path        struct {
		Local  string  `json:"local"`
		Remote string  `json:"remote"`
		RTT    float64 `json:"rtt_ms"`
	} `json:"path"`
	Registrations []struct {
		Trigger string `json:"trigger"`
		Done    bool   `json:"done"`
	} `json:"registrations"`
	Dropped uint64 `json:"packets_dropped"`
}

func (c *client) status() (s status) {
	c.t.Helper()
	out, err := c.host.Command(godwit, "status", "--json", "--dir", c.dir).Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		c.t.Fatalf("status: %v: %s", err, out)
	}
	return s
}

// echoes sends size bytes through a connection and wants them back.
func echoes(t *testing.T, ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), address string, size int) {
	t.Helper()
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		t.Fatalf("through the tunnel: %v", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	sent := make([]byte, size)
	rand.Read(sent)
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, size)
	if n, err := io.ReadFull(conn, got); err != nil {
		t.Fatalf("%d of %d bytes came back: %v", n, size, err)
	}
	if !bytes.Equal(got, sent) {
		t.Error("what came back is not what was sent")
	}
}

var echoAddress = net.JoinHostPort(netns.TargetIPv4.String(), echoPort)

// The client works with a gateway that is not godwit, by each ESP algorithm.
func TestClientPSK(t *testing.T) {
	for _, algorithm := range []struct{ proposal, name string }{
		{"aes128gcm16", "AES_GCM_16-128"},
		{"aes256gcm16", "AES_GCM_16-256"},
		{"chacha20poly1305", "CHACHA20_POLY1305"},
	} {
		t.Run(algorithm.proposal, func(t *testing.T) {
			n := gatewayNetwork(t, netns.Config{})
			ctx := within(t, 2*time.Minute)
			gw := startCharon(t, n.Server, strongSwan{gateway: true, esp: algorithm.proposal + "-noesn"})
			c := pskClient(t, n.Clients[0].Host)
			c.run()
			echoes(t, ctx, c.DialContext, echoAddress, 1<<20)
			if s := c.status(); s.State != "connected" || len(s.Inner) != 1 || s.Inner[0] != "10.77.0.1" {
				t.Errorf("status: %+v", s)
			}
			if sas := gw.swanctl("--list-sas"); !strings.Contains(sas, "ESP:"+algorithm.name) || !strings.Contains(sas, "10.77.0.1/32") {
				t.Errorf("the gateway says: %s", sas)
			}
		})
	}
}

// Both ends prove themselves by raw Ed25519 keys.
func TestClientRawKey(t *testing.T) {
	n := gatewayNetwork(t, netns.Config{})
	ctx := within(t, 2*time.Minute)
	gwKey, gwPublic := newKey(t)
	clKey, clPublic := newKey(t)
	id, err := ike.KeyIdentity(clKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	gw := startCharon(t, n.Server, strongSwan{
		gateway: true,
		local:   "auth = pubkey\n      pubkeys = gw.pem\n      id = " + gatewayName,
		remote:  "auth = pubkey\n      pubkeys = cl.pem\n      id = \"@#" + hex.EncodeToString(id.Data) + "\"",
		secrets: " ",
		files:   map[string]string{"pubkey/gw.pem": gwPublic, "pubkey/cl.pem": clPublic, "private/gw.pem": pkcs8(t, gwKey)},
	})
	c := newClient(t, n.Clients[0].Host,
		"identity = \""+gatewayName+"\"\nserver_key = \""+base64.StdEncoding.EncodeToString(gwKey.Public().(ed25519.PublicKey))+"\"\n",
		map[string]string{"client.key": pkcs8(t, clKey)})
	c.run()
	echoes(t, ctx, c.DialContext, echoAddress, 1<<16)
	if sas := gw.swanctl("--list-sas"); !strings.Contains(sas, "ESTABLISHED") {
		t.Errorf("the gateway says: %s", sas)
	}
}

func newKey(t *testing.T) (key ed25519.PrivateKey, publicPEM string) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// What does not fit ends with the notification that belongs to it and a line
// that says what to do.
func TestClientRefused(t *testing.T) {
	for _, tt := range []struct {
		name     string
		gateway  strongSwan
		identity string // that the client wants of the gateway
		psk      string
		says     string // regular expression
		logged   string // at the gateway
	}{
		{name: "wrong PSK", psk: "another", says: `secret.*AUTHENTICATION_FAILED`, logged: "N(AUTH_FAILED)"},
		{name: "wrong identity", identity: "other.example.org", says: `AUTHENTICATION_FAILED|did not prove`, logged: "no matching peer config found"},
		{name: "no common IKE proposal", gateway: strongSwan{ike: "aes128-sha256-modp3072"}, says: `algorithms.*NO_PROPOSAL_CHOSEN`, logged: "N(NO_PROP)"},
		{name: "no address left", gateway: strongSwan{pools: "another {\n    addrs = 10.50.0.0/24\n  }"}, says: `no inner address.*INTERNAL_ADDRESS_FAILURE`, logged: "N(INT_ADDR_FAIL)"},
		{name: "no common ESP proposal", gateway: strongSwan{esp: "aes128-sha256"}, says: `algorithms.*NO_PROPOSAL_CHOSEN`, logged: "N(NO_PROP)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := gatewayNetwork(t, netns.Config{})
			tt.gateway.gateway = true
			gw := startCharon(t, n.Server, tt.gateway)
			c := newClient(t, n.Clients[0].Host,
				"identity = \""+orDefault(tt.identity, gatewayName)+"\"\nlocal = \""+clientName+"\"\npsk_file = \"psk\"\n",
				map[string]string{"psk": orDefault(tt.psk, sharedKey)})
			line := c.fails()
			if !strings.HasPrefix(line, "godwit: ") || !regexp.MustCompile(tt.says).MatchString(line) {
				t.Errorf("%q does not say %s", line, tt.says)
			}
			if strings.Contains(c.Stderr.String(), sharedKey) {
				t.Error("the secret is in the log")
			}
			gw.logged(within(t, 10*time.Second), tt.logged)
		})
	}
}

// The client proposes all addresses, so whatever a gateway allows it fits. What
// leaves out the address that the client was given is of no use, and it says so.
func TestClientSelectorsElsewhere(t *testing.T) {
	n := gatewayNetwork(t, netns.Config{})
	startCharon(t, n.Server, strongSwan{gateway: true, child: "remote_ts = 10.50.0.0/24"})
	c := pskClient(t, n.Clients[0].Host)
	c.run()
	if err := c.Stderr.Expect(within(t, 10*time.Second), "leave out the address that it gave"); err != nil {
		t.Error(err)
	}
}
