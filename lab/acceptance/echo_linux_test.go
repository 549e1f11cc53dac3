//go:build netns

package acceptance

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

var echoAddress = net.JoinHostPort(netns.TargetIPv4.String(), "7")

// echo sends everything back.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// pings go to and fro on one connection, one after the other, without a pause.
type pings struct {
	count counter
	err   error // set before done is closed
	done  chan struct{}
}

func startPings(t *testing.T, ctx context.Context, c *client) *pings {
	t.Helper()
	conn, err := c.DialContext(ctx, "tcp", echoAddress)
	if err != nil {
		t.Fatalf("connect to the echo server: %v", err)
	}
	p := &pings{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = p.run(conn)
	}()
	t.Cleanup(func() {
		conn.Close()
		<-p.done
	})
	return p
}

func (p *pings) run(conn net.Conn) error {
	sent, got := make([]byte, 1000), make([]byte, 1000)
	for i := int64(1); ; i++ {
		binary.BigEndian.PutUint64(sent, uint64(i))
		if _, err := conn.Write(sent); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if !bytes.Equal(sent, got) {
			return fmt.Errorf("ping %d came back altered", i)
		}
		p.count.set(i)
		// Not so many that two clients fight for the processors.
		time.Sleep(time.Millisecond)
	}
}

// more waits for some more pings.
func (p *pings) more(t *testing.T, ctx context.Context, who string) {
	t.Helper()
	now, _ := p.count.get()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := p.count.wait(ctx, now+10); err != nil {
		select {
		case <-p.done:
			t.Fatalf("%s: ping %d: %v", who, now, p.err)
		default:
			t.Fatalf("%s: ping %d: %v", who, now, err)
		}
	}
}
