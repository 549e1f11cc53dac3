//go:build netns

package acceptance

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// kill -9 of the server: the next one of its kind proves to the client that its
// IKE SA is lost, and the client comes back by itself.
func TestServerKilled(t *testing.T) {
	n := netns.New(t, netns.Config{Access: accessNetworks[:1]})
	echo := net.JoinHostPort(netns.TargetIPv4.String(), "7")
	n.Target.Serve(echo, func(c net.Conn) { _, _ = io.Copy(c, c) })
	ctx := within(t, 2*time.Minute)
	s := startServer(t, n)
	c := startClient(t, s, n.Clients[0])
	talk := func() error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		conn, err := c.DialContext(ctx, "tcp", echo)
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		_ = conn.SetDeadline(deadline)
		if _, err := conn.Write([]byte("hello")); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, 5))
		return err
	}
	if err := talk(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Process = start(t, s.host, "server", "run", "--dir", s.dir)
	for {
		err := talk()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the client does not come back: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if log := c.Stderr.String(); !strings.Contains(log, "was started anew and has lost the IKE SA") {
		t.Errorf("the client found out otherwise: %s", log)
	}
}
