//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/lab/netns"
)

// A machineWorld is a network whose client's machine is to go through the tunnel
// as a whole. The target has the name site.test.
type machineWorld struct {
	*netns.Network
	server *server
	client *client
	site   *site
	asked  func() []string // names that the target's name server was asked for
}

// newMachineWorld builds all but the running client.
func newMachineWorld(t *testing.T, access ...netns.AccessConfig) *machineWorld {
	t.Helper()
	w := &machineWorld{Network: netns.New(t, netns.Config{Access: access})}
	w.site = startSite(t, w.Network, "[::]:8000")
	w.site.gate.set(1 << 40)
	w.asked = startNames(t, w.Target)
	w.Server.Resolver(netns.TargetIPv4)
	// The network's own name server; nobody is there to answer.
	w.Clients[0].Resolver(netip.MustParseAddr("10.1.0.1"))
	w.Target.Serve("[::]:7", echo)
	startEcho(t, w.Target)
	endpoint := net.JoinHostPort(netns.ServerIPv4.String(), "443")
	if access[0].Families == netns.IPv6 {
		endpoint = net.JoinHostPort(netns.ServerIPv6.String(), "443")
	}
	s := &server{host: w.Server, dir: t.TempDir()}
	must(t, s.host, "server", "init", "--endpoint", endpoint, "--listen", endpoint,
		"--allow", netns.TargetNet.String(), "--allow", netns.TargetNetIPv6.String(), "--dir", s.dir)
	s.Process = start(t, s.host, "server", "run", "--dir", s.dir)
	w.server, w.client = s, joinClient(t, s, w.Clients[0])
	return w
}

// run runs a program of the client's machine and gives what it printed.
func (w *machineWorld) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := w.Clients[0].Command(name, args...)
	cmd = exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

// must is run of a program that has to succeed.
func (w *machineWorld) must(t *testing.T, ctx context.Context, name string, args ...string) string {
	t.Helper()
	out, err := w.run(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// download fetches a stream by curl.
func (w *machineWorld) download(t *testing.T, ctx context.Context, url string) *download {
	t.Helper()
	d := &download{done: make(chan struct{})}
	cmd := w.Clients[0].Command("curl", "--silent", "--show-error", "--fail", url)
	cmd = exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		hash, buf, n := sha256.New(), make([]byte, 256<<10), int64(0)
		for {
			k, err := out.Read(buf)
			hash.Write(buf[:k])
			n += int64(k)
			d.progress.set(n)
			if err != nil {
				break
			}
		}
		if err := cmd.Wait(); err != nil {
			d.err = fmt.Errorf("curl after %d bytes: %w: %s", n, err, said.String())
		}
		d.sum = hex.EncodeToString(hash.Sum(nil))
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-d.done
	})
	return d
}

// wantSum checks a whole stream.
func (d *download) wantSum(t *testing.T, size int64) {
	t.Helper()
	<-d.done
	want := sha256.New()
	if _, err := io.CopyN(want, streamSource(), size); err != nil {
		t.Fatal(err)
	}
	if n, _ := d.progress.get(); d.err != nil || n != size || d.sum != hex.EncodeToString(want.Sum(nil)) {
		t.Errorf("download: %d bytes of %d with the sum %s: %v", n, size, d.sum, d.err)
	}
}

// A routing is what the kernel and the system have of routes, rules and names.
type routing struct{ text string }

// routing gives all of it, to be compared.
func (w *machineWorld) routing(t *testing.T, ctx context.Context) routing {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{
		{"ip", "rule"}, {"ip", "-6", "rule"}, {"ip", "route", "show", "table", "all"}, {"ip", "-6", "route", "show", "table", "all"},
		{"ip", "-brief", "link"}, {"cat", "/etc/resolv.conf"},
		{"sh", "-c", "grep . /proc/sys/net/ipv4/conf/*/rp_filter"},
	} {
		fmt.Fprintf(&b, "%s:\n%s\n", strings.Join(args, " "), w.must(t, ctx, args[0], args[1:]...))
	}
	return routing{b.String()}
}

// without leaves out the lines that hold a word, such as addresses that an
// interface gets anew when it comes up.
func (r routing) without(word string) string {
	var b strings.Builder
	for line := range strings.Lines(r.text) {
		if !strings.Contains(line, word) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// startNames answers for site.test at a host, over UDP and TCP.
func startNames(t *testing.T, h *netns.Host) (asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var names []string
	answer := func(b []byte) []byte {
		var m dnsmessage.Message
		if m.Unpack(b) != nil || len(m.Questions) != 1 {
			return nil
		}
		q := m.Questions[0]
		mu.Lock()
		names = append(names, q.Name.String())
		mu.Unlock()
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
		switch {
		case q.Name.String() != "site.test." && q.Name.String() != "only6.test.":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA && q.Name.String() == "site.test.":
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: netns.TargetIPv4.As4()}}}
		case q.Type == dnsmessage.TypeAAAA:
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AAAAResource{AAAA: netns.TargetIPv6.As16()}}}
		}
		out, err := m.Pack()
		if err != nil {
			return nil
		}
		return out
	}
	pc := h.ListenPacket("udp", "[::]:53")
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if out := answer(b[:n]); out != nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	h.Serve("[::]:53", func(c net.Conn) {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		b := make([]byte, int(head[0])<<8|int(head[1]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if out := answer(b); out != nil {
			_, _ = c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...))
		}
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), names...)
	}
}

// startEcho sends datagrams back at UDP port 7.
func startEcho(t *testing.T, h *netns.Host) {
	t.Helper()
	pc := h.ListenPacket("udp", "[::]:7")
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
}

// A leakWatch sees all that a machine sends by one device, and keeps what is no
// carrier's: not to the server's port, and not what keeps the link itself going.
type leakWatch struct {
	t      *testing.T
	dev    string
	socket *os.File
	done   chan struct{}
	once   sync.Once

	mu     sync.Mutex
	leaks  map[string]int
	passed int
}

// watchLeaks watches a device of the client's machine until the test ends.
func (w *machineWorld) watchLeaks(t *testing.T, dev string) *leakWatch {
	t.Helper()
	l := &leakWatch{t: t, dev: dev, done: make(chan struct{}), leaks: make(map[string]int)}
	err := w.Clients[0].Do(func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		all := uint16(unix.ETH_P_ALL)
		l.socket = os.NewFile(uintptr(fd), "packet socket")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: i.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	go l.run()
	t.Cleanup(l.stop)
	return l
}

func (l *leakWatch) run() {
	defer close(l.done)
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, 200)
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), b, unix.MSG_TRUNC)
			return failed != unix.EAGAIN
		})
		if err != nil {
			return
		}
		if at, ok := from.(*unix.SockaddrLinklayer); failed == nil && ok && at.Pkttype == unix.PACKET_OUTGOING {
			l.see(b[:min(n, len(b))])
		}
	}
}

// see sorts one packet, without its link header.
func (l *leakWatch) see(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(b) >= 24 && b[0]>>4 == 4:
		to := netip.AddrFrom4([4]byte(b[16:20]))
		at := int(b[0]&15) * 4
		port := 0
		if len(b) >= at+4 {
			port = int(b[at+2])<<8 | int(b[at+3])
		}
		if to == netns.ServerIPv4 && port == 443 && (b[9] == unix.IPPROTO_UDP || b[9] == unix.IPPROTO_TCP) {
			l.passed++
			return
		}
		l.leaks[fmt.Sprintf("protocol %d to %v port %d", b[9], to, port)]++
	case len(b) >= 44 && b[0]>>4 == 6:
		to := netip.AddrFrom16([16]byte(b[24:40]))
		// Neighbours, routers and multicast groups of the link (RFC 4861, RFC
		// 3810), which are asked for by the kernel itself.
		if b[6] == 0 || b[6] == unix.IPPROTO_ICMPV6 && (to.IsLinkLocalUnicast() || to.IsLinkLocalMulticast() || b[40] >= 133) {
			return
		}
		port := int(b[42])<<8 | int(b[43])
		if to == netns.ServerIPv6 && port == 443 && (b[6] == unix.IPPROTO_UDP || b[6] == unix.IPPROTO_TCP) {
			l.passed++
			return
		}
		l.leaks[fmt.Sprintf("protocol %d to %v port %d", b[6], to, port)]++
	} // anything else is ARP
}

func (l *leakWatch) stop() { l.once.Do(func() { l.socket.Close(); <-l.done }) }

// want checks that carriers have left by the device, and nothing else.
func (l *leakWatch) want(carriers bool) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if carriers && l.passed == 0 {
		l.t.Errorf("nothing of the tunnel was seen on %s: the watch proves nothing", l.dev)
	}
	for what, n := range l.leaks {
		l.t.Errorf("%d packets left by %s outside of the tunnel: %s", n, l.dev, what)
	}
}
