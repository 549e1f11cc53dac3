//go:build netns

package acceptance

import (
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/godwit-net/godwit/lab/netns"
)

// curl goes through the proxy in every way it knows. Only the server can
// resolve names.
func TestCurl(t *testing.T) {
	n := netns.New(t, netns.Config{Access: accessNetworks[:1]})
	startSite(t, n, net.JoinHostPort(netns.TargetIPv4.String(), "80"))
	startDNS(t, n.Server, "web.test.", netns.TargetIPv4)
	s := startServer(t, n)
	c := startClient(t, s, n.Clients[0])

	curl := func(args ...string) (int, string) {
		p := c.host.Start("curl", append([]string{"-sS", "--max-time", "50"}, args...)...)
		code, err := p.Wait(within(t, time.Minute))
		if err != nil {
			t.Fatalf("curl: %v", err)
		}
		return code, p.Stdout.String()
	}
	const url = "http://web.test/hello"
	// 6 means that the name was not resolved, according to curl's manual.
	if code, _ := curl(url); code != 6 {
		t.Fatalf("curl without the proxy: exit code %d; the client should not be able to resolve names", code)
	}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"SOCKS5, name", []string{"--socks5-hostname", proxyAddress, url}},
		{"SOCKS5, address", []string{"--socks5", proxyAddress, "-H", "Host: web.test", "http://" + netns.TargetIPv4.String() + "/hello"}},
		{"SOCKS4A", []string{"--socks4a", proxyAddress, url}},
		{"HTTP", []string{"-x", "http://" + proxyAddress, url}},
		{"HTTP CONNECT", []string{"-x", "http://" + proxyAddress, "--proxytunnel", url}},
	} {
		code, out := curl(tt.args...)
		if code != 0 || !strings.HasPrefix(out, "hello 192.0.2.1:") || !strings.HasSuffix(out, "this is web.test\n") {
			t.Errorf("%s: exit code %d, %q", tt.name, code, out)
		}
	}
	if code, out := curl("--socks5-hostname", proxyAddress, "http://no-such-name.test/"); code == 0 {
		t.Errorf("a name that does not exist: %q", out)
	}
	// The server's own network is closed but for what was allowed.
	if code, out := curl("--socks5-hostname", proxyAddress, "http://127.0.0.1:443/"); code == 0 {
		t.Errorf("the server's loopback: %q", out)
	}
}

// startDNS runs a name server on the host's loopback that knows one name, and
// makes the host ask it.
func startDNS(t *testing.T, h *netns.Host, name string, address netip.Addr) {
	t.Helper()
	server := netip.MustParseAddr("127.0.0.1")
	h.Resolver(server)
	c := h.ListenPacket("udp", net.JoinHostPort(server.String(), "53"))
	done := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:k]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m = dnsmessage.Message{
				Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true},
				Questions: m.Questions,
			}
			switch {
			case q.Name.String() != name:
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: address.As4()},
				}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(b, from)
			}
		}
	}()
}

// Both ends stop on SIGTERM in the midst of a transfer, and leave nothing.
func TestStop(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	for _, first := range []string{"client", "server"} {
		t.Run(first+" first", func(t *testing.T) {
			n := netns.New(t, netns.Config{Access: accessNetworks[:1]})
			address := net.JoinHostPort(netns.TargetIPv4.String(), "8000")
			target := startSite(t, n, address)
			s := startServer(t, n)
			c := joinClient(t, s, n.Clients[0])
			filesBefore := append(files(t, s.dir), files(t, c.dir)...)
			c.run(t)
			d := startDownload(t, c, "http://"+address+"/stream?size=100000000")
			target.gate.set(50 * mega)
			d.reach(t, ctx, 10*mega)

			stop := []*netns.Process{c.Process, s.Process}
			if first == "server" {
				slices.Reverse(stop)
			}
			for _, p := range stop {
				if err := p.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if code, err := p.Wait(ctx); code != 0 || err != nil {
					t.Errorf("exit code %d, %v", code, err)
				}
				// The program itself keeps to the two seconds, and says so when
				// it had to.
				if strings.Contains(p.Stderr.String(), "cut off") {
					t.Errorf("it did not end by itself: %s", p.Stderr)
				}
			}
			if got := append(files(t, s.dir), files(t, c.dir)...); !slices.Equal(got, filesBefore) {
				t.Errorf("the files were %v and are %v", filesBefore, got)
			}
			// The ports are free again.
			n.Server.Listen("tcp", net.JoinHostPort(netns.ServerIPv4.String(), "443"))
			n.Server.ListenPacket("udp", net.JoinHostPort(netns.ServerIPv4.String(), "443"))
			n.Clients[0].Listen("tcp", proxyAddress)
		})
	}
}

// files lists a folder.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			path, err = filepath.Rel(dir, path)
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
