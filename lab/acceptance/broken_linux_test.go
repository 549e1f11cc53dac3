//go:build netns

package acceptance

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/godwit-net/godwit/lab/netns"
)

// A page of unknown length that breaks off must not look like a shorter one: curl
// has all that came, and an error. By a proxy that only closes it would have
// neither.
func TestBrokenPage(t *testing.T) {
	d := startDesk(t)
	page := blob(t, mega)
	d.n.Target.Serve(net.JoinHostPort(netns.TargetIPv4.String(), "80"), func(c net.Conn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n%s", page); err != nil {
			return
		}
		// The reset would drop what has not been acknowledged.
		raw, err := c.(*net.TCPConn).SyscallConn()
		for left := 1; left > 0 && err == nil; time.Sleep(10 * time.Millisecond) {
			_ = raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		}
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	for _, way := range [][]string{{"--socks5-hostname", proxyAddress}, {"-x", "http://" + proxyAddress, "--proxytunnel"}, {"-x", "http://" + proxyAddress}} {
		p := d.start(nil, "curl", append([]string{"-sS", "--limit-rate", "1M", "--max-time", "50", "http://" + webName + "/"}, way...)...)
		code, err := p.Wait(within(t, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		// 18: a part of the file; 56: failure to receive, in curl's manual.
		if code != 56 && code != 18 {
			t.Errorf("%s: exit code %d: %s", way, code, p.Stderr)
		}
		if got := p.Stdout.String(); got != string(page) {
			t.Errorf("%s: %d bytes arrived of %d", way, len(got), len(page))
		}
	}
}
