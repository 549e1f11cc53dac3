//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/godwit-net/godwit/lab/netns"
)

// proxyAddress is where clients listen, each in a namespace of its own.
const proxyAddress = "127.0.0.1:1080"

// outcome is what a command left.
type outcome struct {
	code           int
	stdout, stderr string
}

// command runs godwit to its end.
func command(t *testing.T, ctx context.Context, h *netns.Host, args ...string) outcome {
	t.Helper()
	cmd := h.Command(godwit, args...)
	cmd = exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the exit code says it
	if ctx.Err() != nil {
		t.Fatalf("godwit %s does not end\nstdout: %s\nstderr: %s", strings.Join(args, " "), &stdout, &stderr)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs godwit, which has to succeed, and gives what it printed.
func must(t *testing.T, h *netns.Host, args ...string) string {
	t.Helper()
	o := command(t, within(t, time.Minute), h, args...)
	if o.code != 0 {
		t.Fatalf("godwit %s: exit code %d: %s", strings.Join(args, " "), o.code, o.stderr)
	}
	return o.stdout
}

// start runs godwit until it says that it is ready.
func start(t *testing.T, h *netns.Host, args ...string) *netns.Process {
	t.Helper()
	p := h.Start(godwit, args...)
	if err := p.Stdout.Expect(within(t, time.Minute), "ready"); err != nil {
		t.Fatalf("godwit %s: %v", strings.Join(args, " "), err)
	}
	return p
}

// A server is a running godwit server.
type server struct {
	*netns.Process
	host *netns.Host
	dir  string
}

// startServer sets a server up that lets clients reach the target, and runs it.
func startServer(t *testing.T, n *netns.Network) *server {
	t.Helper()
	s := &server{host: n.Server, dir: t.TempDir()}
	endpoint := net.JoinHostPort(netns.ServerIPv4.String(), "443")
	must(t, s.host, "server", "init", "--endpoint", endpoint, "--listen", endpoint,
		"--allow", netns.TargetNet.String(), "--dir", s.dir)
	setOffload(t, filepath.Join(s.dir, "server.toml"))
	s.Process = start(t, s.host, "server", "run", "--dir", s.dir)
	return s
}

// invite gives a link for a new client.
func (s *server) invite(t *testing.T, name string) string {
	t.Helper()
	out := must(t, s.host, "server", "invite", name, "--dir", s.dir)
	link, rest, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(link, "godwit://") || rest != "" {
		t.Fatalf("invite printed %q", out)
	}
	return link
}

// A client is a running godwit client.
type client struct {
	*netns.Process
	host   *netns.Client
	server *server
	dir    string
}

// startClient invites, joins and runs a client; args go to client run.
func startClient(t *testing.T, s *server, host *netns.Client, args ...string) *client {
	t.Helper()
	c := joinClient(t, s, host)
	c.run(t, args...)
	return c
}

// joinClient invites and joins a client.
func joinClient(t *testing.T, s *server, host *netns.Client) *client {
	t.Helper()
	c := &client{host: host, server: s, dir: t.TempDir()}
	must(t, host.Host, "client", "join", s.invite(t, host.Name), "--dir", c.dir, "--offline")
	setOffload(t, filepath.Join(c.dir, "client.toml"))
	return c
}

// offload is what the key offload is set to in all settings.
var offload = flag.Bool("offload", true, "let many packets cross the stack and the system at once")

// setOffload writes the flag into a settings file.
func setOffload(t *testing.T, file string) {
	t.Helper()
	if *offload {
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	off := bytes.Replace(b, []byte("offload = true"), []byte("offload = false"), 1)
	if bytes.Equal(off, b) {
		t.Fatalf("%s has no key offload that is true", file)
	}
	if err := os.WriteFile(file, off, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs the client until it is ready.
func (c *client) run(t *testing.T, args ...string) {
	t.Helper()
	c.Process = start(t, c.host.Host, append([]string{"client", "run", "--dir", c.dir, "--listen", proxyAddress}, args...)...)
}

// DialContext connects through the client's SOCKS5 proxy.
func (c *client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d, err := proxy.SOCKS5("tcp", proxyAddress, nil, c.host)
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, network, address)
}

// status is what godwit status --json is documented to hold; ike_sent and
// ike_received tell of IKE messages that no capture can see inside TLS.
type status struct {
	State string   `json:"state"`
	Inner []string `json:"inner"`
	Path  struct {
		Encapsulation string    `json:"encapsulation"`
		Local         string    `json:"local"`
		Remote        string    `json:"remote"`
		RTT           float64   `json:"rtt_ms"`
		Verdict       string    `json:"verdict"`
		Since         time.Time `json:"since"`
		Down          struct {
			Encapsulation string `json:"encapsulation"`
		} `json:"down"`
	} `json:"path"`
	Standby *struct {
		Encapsulation string `json:"encapsulation"`
	} `json:"standby"`
	Registrations []struct {
		Number   uint64  `json:"number"`
		Trigger  string  `json:"trigger"`
		Selected string  `json:"selected"`
		Verdict  string  `json:"verdict"`
		Revision uint    `json:"revision"`
		Duration float64 `json:"duration_ms"`
	} `json:"registrations"`
	Portal *portalStatus `json:"portal"`

	BytesSent     uint64 `json:"bytes_sent"`
	BytesReceived uint64 `json:"bytes_received"`
	TCPTimeouts   uint64 `json:"tcp_timeouts"`
	Resent        uint64 `json:"packets_resent"`
	IKESent       uint64 `json:"ike_sent"`
	IKEReceived   uint64 `json:"ike_received"`
}

func (s status) String() string {
	b := fmt.Sprintf("%s by %s from %s to %s, verdict %s, round trip %.1f ms; IKE %d sent, %d received",
		s.State, s.Path.Encapsulation, s.Path.Local, s.Path.Remote, s.Path.Verdict, s.Path.RTT, s.IKESent, s.IKEReceived)
	for _, r := range s.Registrations {
		b += fmt.Sprintf("\n  %d: %s, %s, %s, revision %d, %.1f ms", r.Number, r.Trigger, r.Selected, r.Verdict, r.Revision, r.Duration)
	}
	return b
}

func (c *client) status(t *testing.T) (s status) {
	t.Helper()
	out := must(t, c.host.Host, "status", "--json", "--dir", c.dir)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("status: %v: %s", err, out)
	}
	return s
}

// await asks for the status until it is as wanted.
func (c *client) await(t *testing.T, ctx context.Context, what string, wanted func(status) bool) status {
	t.Helper()
	for {
		s := c.status(t)
		if wanted(s) {
			return s
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: never; status is %s", what, s)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
