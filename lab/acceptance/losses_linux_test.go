//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A long link loses packets, and streams cross it both ways all the same, whole and
// in a time in which TCP alone does not get far. How fast it is, bench measures.
func TestLosses(t *testing.T) {
	const size = 3 * mega // each way
	n := netns.New(t, netns.Config{Access: []netns.AccessConfig{{Name: "train", NAT: netns.KeepPorts, Delay: 25 * time.Millisecond}}})
	want := make([]byte, size)
	if _, err := io.ReadFull(streamSource(), want); err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort(netns.TargetIPv4.String(), "7")
	ln := n.Target.Listen("tcp", at)
	done := make(chan struct{})
	go func() { // takes size bytes, and gives them back when it has all
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b := make([]byte, size)
			if _, err := io.ReadFull(c, b); err == nil {
				_, _ = c.Write(b)
			}
			c.Close()
		}
	}()
	defer func() {
		ln.Close()
		<-done
	}()
	c := startClient(t, startServer(t, n), n.Clients[0])
	before := c.await(t, within(t, time.Minute), "connected by udp", func(s status) bool { return s.Path.Encapsulation == "udp" && s.Path.Verdict == "nat" })
	for _, loss := range []float64{0, 0.01, 0.03, 0.10} {
		n.Access[0].Relay.SetFaults(netns.Faults{Rate: 100e6 / 8, Queue: 100e6 / 8 / 20, Loss: loss})
		resent := c.status(t).Resent
		start := time.Now()
		// With 10 % lost TCP alone needs minutes for this.
		thereAndBack(t, within(t, time.Minute), c, at, want)
		t.Logf("%v lost: %v", loss, time.Since(start))
		if got := c.status(t).Resent - resent; loss > 0 && got == 0 {
			t.Errorf("with %v lost the client has sent nothing again", loss)
		}
	}
	// Losses are no reason to leave the path.
	s := c.status(t)
	if s.Path.Encapsulation != "udp" || s.Path.Local != before.Path.Local || s.State != "connected" {
		t.Errorf("before: %s\nnow: %s", before, s)
	}
}

// thereAndBack sends b to a target that gives it back.
func thereAndBack(t *testing.T, ctx context.Context, c *client, at string, b []byte) {
	t.Helper()
	conn, err := c.DialContext(ctx, "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%d of %d bytes came back: %v; as they were sent: %v", n, len(b), err, bytes.Equal(got, b))
	}
}
