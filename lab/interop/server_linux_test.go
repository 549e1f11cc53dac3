//go:build netns

package interop

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A server is a running godwit server that takes IKEv2 clients.
type server struct {
	*netns.Process
	t    *testing.T
	host *netns.Host
	dir  string
}

// startServer sets a server up with a user for the shared key, and runs it. The
// lines go into its table [ikev2].
func startServer(t *testing.T, n *netns.Network, lines string, args ...string) *server {
	t.Helper()
	return startServerWith(t, n, lines, nil, []string{"user", "add", "carol", "--id", clientName, "--secret-stdin"}, args...)
}

// startServerWith is startServer with files in the server's folder, and another
// command that makes the user.
func startServerWith(t *testing.T, n *netns.Network, lines string, files map[string]string, user []string, args ...string) *server {
	t.Helper()
	return startServerUser(t, n, lines, files, sharedKey, user, args...)
}

// startServerUser is startServerWith with another secret of the user.
func startServerUser(t *testing.T, n *netns.Network, lines string, files map[string]string, secret string, user []string, args ...string) *server {
	t.Helper()
	s := &server{t: t, host: n.Server, dir: t.TempDir()}
	endpoint := net.JoinHostPort(netns.ServerIPv4.String(), "443")
	s.must("", "init", "--endpoint", endpoint, "--listen", endpoint, "--allow", netns.TargetNet.String())
	s.settings("[ikev2]\nidentity = \"" + gatewayName + "\"\n" + lines)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.must(secret, user...)
	s.run(args...)
	return s
}

// settings adds lines to the server's settings.
func (s *server) settings(lines string) {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.dir, "server.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("\n" + lines + "\n"); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) run(args ...string) {
	s.t.Helper()
	s.Process = s.host.Start(godwit, append([]string{"server", "run", "--dir", s.dir, "--log-level", "debug"}, args...)...)
	if err := s.Stdout.Expect(within(s.t, time.Minute), "ready"); err != nil {
		s.t.Fatal(err)
	}
}

// must runs a command of godwit server, which has to succeed.
func (s *server) must(stdin string, args ...string) string {
	s.t.Helper()
	cmd := s.host.Command(godwit, append(append([]string{"server"}, args...), "--dir", s.dir)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("godwit server %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// serverNetwork is a network whose server does not route: what reaches the target
// left a socket of the server.
func serverNetwork(t *testing.T, c netns.Config) *netns.Network {
	t.Helper()
	t.Parallel() // as in gatewayNetwork
	if len(c.Access) == 0 {
		c.Access = []netns.AccessConfig{{Name: "home"}}
	}
	n := netns.New(t, c)
	echoTarget(n)
	return n
}

// ping pings the target from a host.
func ping(t *testing.T, ctx context.Context, h *netns.Host, args ...string) {
	t.Helper()
	cmd := h.Command("ping", append(append([]string{"-c", "3", "-i", "0.2", "-W", "5"}, args...), netns.TargetIPv4.String())...)
	cmd = exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), " 0% packet loss") {
		t.Errorf("ping: %v: %s", err, out)
	}
}

// udpEchoes sends datagrams of some sizes and wants them back.
func udpEchoes(t *testing.T, ctx context.Context, h *netns.Host, address string, sizes ...int) {
	t.Helper()
	c, err := h.DialContext(ctx, "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	for _, size := range sizes {
		sent := strings.Repeat("u", size)
		if _, err := c.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5000)
		if n, err := c.Read(b); err != nil || string(b[:n]) != sent {
			t.Errorf("%d bytes of a datagram of %d came back, %v", n, size, err)
		}
	}
}

// A road warrior that is not godwit comes in by a shared key and reaches the
// target by TCP, UDP and ping, with each ESP algorithm.
func TestServerPSK(t *testing.T) {
	for _, algorithm := range []struct{ proposal, name string }{
		{"aes128gcm16", "AES_GCM_16-128"},
		{"aes256gcm16", "AES_GCM_16-256"},
		{"chacha20poly1305", "CHACHA20_POLY1305"},
	} {
		t.Run(algorithm.proposal, func(t *testing.T) {
			n := serverNetwork(t, netns.Config{})
			ctx := within(t, 2*time.Minute)
			startServer(t, n, "")
			cl := startCharon(t, n.Clients[0].Host, strongSwan{esp: algorithm.proposal + "-x25519-noesn"})
			if out := cl.connect(); !strings.Contains(out, "established successfully") && !strings.Contains(out, "completed successfully") {
				t.Fatalf("not connected: %s", out)
			}
			if sas := cl.swanctl("--list-sas"); !strings.Contains(sas, "ESP:"+algorithm.name) || !strings.Contains(sas, "10.143.0.2/32") {
				t.Errorf("the client says: %s", sas)
			}
			echoes(t, ctx, n.Clients[0].DialContext, echoAddress, 1<<20)
			udpEchoes(t, ctx, n.Clients[0].Host, echoAddress, 1, 1000, 4000)
			ping(t, ctx, n.Clients[0].Host)
			if !strings.Contains(cl.log(), "CPRP(ADDR DNS)") {
				t.Error("no name server was handed out")
			}
			// The one handed out passes questions on to the server's own.
			echoUDP(n.Server.ListenPacket("udp", "127.0.0.1:53"))
			udpEchoes(t, ctx, n.Clients[0].Host, "10.143.0.1:53", 40)
		})
	}
}

// What does not fit ends with the notification that belongs to it, and the
// server's log says why.
func TestServerRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		client strongSwan
		says   string // at the client
		logged string // at the server
	}{
		{"wrong PSK", strongSwan{secrets: "ike-rw {\n    secret = another one\n  }"}, "AUTHENTICATION_FAILED", "shared keys differ"},
		{"unknown identity", strongSwan{local: "auth = psk\n      id = mallory@example.org", secrets: "ike-rw {\n    secret = \"" + sharedKey + "\"\n  }"}, "AUTHENTICATION_FAILED", "mallory@example.org"},
		{"another server wanted", strongSwan{remote: "auth = psk\n      id = other.example.org", secrets: "ike-rw {\n    secret = \"" + sharedKey + "\"\n  }"}, "", "AUTHENTICATION_FAILED"},
		{"no common IKE proposal", strongSwan{ike: "aes128-sha256-modp3072"}, "NO_PROPOSAL_CHOSEN", ""},
		{"no common ESP proposal", strongSwan{esp: "aes128-sha256"}, "NO_PROPOSAL_CHOSEN", "no ESP proposal fits"},
		{"no selectors in common", strongSwan{child: "local_ts = 10.50.0.0/24"}, "TS_UNACCEPTABLE", "traffic selectors"},
		{"no address asked for", strongSwan{connection: "vips ="}, "FAILED_CP_REQUIRED", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := serverNetwork(t, netns.Config{})
			s := startServer(t, n, "")
			cl := startCharon(t, n.Clients[0].Host, tt.client)
			out := cl.connect()
			if !strings.Contains(out, "failed") || !strings.Contains(out, tt.says) {
				t.Errorf("the client does not say %q: %s", tt.says, out)
			}
			if err := s.Stderr.Expect(within(t, 10*time.Second), tt.logged); err != nil {
				t.Errorf("the server's log: %v", err)
			}
			if strings.Contains(s.Stderr.String(), sharedKey) {
				t.Error("the secret is in the log")
			}
		})
	}
}
