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

// startDNS runs a name server on the host's loopback that knows one name, and
// makes the host ask it.
func startDNS(t *testing.T, h *netns.Host, name string, address netip.Addr) {
	t.Helper()
	server := netip.MustParseAddr("127.0.0.1")
	h.Resolver(server)
	serveDNS(t, h.ListenPacket("udp", net.JoinHostPort(server.String(), "53")), name, onlyIPv4(address))
}

// onlyIPv4 is for a name with one address.
func onlyIPv4(address netip.Addr) func(dnsmessage.Type) []dnsmessage.ResourceBody {
	return func(typ dnsmessage.Type) []dnsmessage.ResourceBody {
		if typ != dnsmessage.TypeA {
			return nil
		}
		return []dnsmessage.ResourceBody{&dnsmessage.AResource{A: address.As4()}}
	}
}

// serveDNS answers at c until the test ends, for one name, with what is known of each
// type.
func serveDNS(t *testing.T, c net.PacketConn, name string, known func(dnsmessage.Type) []dnsmessage.ResourceBody) {
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
			if q.Name.String() != name {
				m.RCode = dnsmessage.RCodeNameError
			} else {
				for _, body := range known(q.Type) {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
						Body:   body,
					})
				}
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
			socket := func(name string) bool { return name == "control.sock" } // of the server that runs
			filesBefore := slices.DeleteFunc(append(files(t, s.dir), files(t, c.dir)...), socket)
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
			// What worked where is written down when it is known, which may be now.
			places := func(name string) bool { return name == "networks.json" }
			if got := slices.DeleteFunc(append(files(t, s.dir), files(t, c.dir)...), places); !slices.Equal(got, filesBefore) {
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
