package forward

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-net/godwit/tunnel/portmsg"
)

func TestParseRemote(t *testing.T) {
	for _, good := range []string{"tcp [::]:8080 127.0.0.1:3000", "udp inner:53 localhost:53", "tcp 192.0.2.1:1 [::1]:2"} {
		if r, err := ParseRemote(good); err != nil || r.String() != good {
			t.Errorf("%q: %v, %v", good, r, err)
		}
	}
	for _, bad := range []string{"", "tcp", "sctp [::]:1 a:1", "tcp :1 a:1", "tcp example.org:1 a:1", "tcp [::]:0 a:1", "tcp inner:0 a:1",
		"tcp inner:x a:1", "tcp inner a:1", "tcp [fe80::1%eth0]:1 a:1", "tcp [::]:1 a", "tcp [::]:1 a:0", "tcp [::]:1 a:1 b"} {
		if r, err := ParseRemote(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, r)
		}
	}
}

// loopbackInside stands for the tunnel.
type loopbackInside struct{ control net.Conn }

func (l loopbackInside) Control(context.Context) (net.Conn, error) { return l.control, nil }
func (loopbackInside) ListenTCP() (net.Listener, error)            { return net.Listen("tcp", "127.0.0.1:0") }
func (loopbackInside) ListenUDP() (net.PacketConn, error) {
	return net.ListenPacket("udp", "127.0.0.1:0")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The user is told what became of each port, once; when the service breaks off,
// everything is asked for again.
func TestRemoteTellsAndAsksAgain(t *testing.T) {
	controls := make(chan net.Conn)
	var log lockedBuffer
	first, _ := ParseRemote("tcp [::]:8080 127.0.0.1:1")
	second, _ := ParseRemote("udp inner:53 127.0.0.1:1")
	r := StartRemote(RemoteConfig{
		Rules: []RemoteRule{first, second},
		Open: func(ctx context.Context) (Inside, error) {
			here, there := net.Pipe()
			select {
			case controls <- there:
				return loopbackInside{here}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	defer r.Close()
	for range 2 {
		c := <-controls
		for id, want := range r.c.Rules {
			m, err := portmsg.Read(c)
			if err != nil {
				t.Fatal(err)
			}
			q, ok := m.(*portmsg.Request)
			if !ok || int(q.ID) != id || q.Network != want.Network || q.Port != want.At.Port() || q.At != want.At.Addr() || q.To == 0 {
				t.Fatalf("asked %+v for %v", m, want)
			}
		}
		for _, m := range []portmsg.Message{
			&portmsg.Reply{ID: 0}, &portmsg.Reply{ID: 0}, &portmsg.Reply{ID: 99},
			&portmsg.Reply{ID: 1, Status: portmsg.InUse, Reason: "a\nreason"},
		} {
			b, _ := portmsg.Append(nil, m)
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	r.Close()
	text := log.String()
	if strings.Count(text, "is open") != 2 || strings.Count(text, "cannot be had") != 2 || !strings.Contains(text, `udp inner:53 127.0.0.1:1`) || strings.Count(text, "\n") != 4 {
		t.Errorf("the log says\n%s", text)
	}
}

// Other rules are asked for at once.
func TestRemoteUpdate(t *testing.T) {
	controls := make(chan net.Conn)
	first, _ := ParseRemote("tcp [::]:8080 127.0.0.1:1")
	second, _ := ParseRemote("udp inner:53 127.0.0.1:1")
	r := StartRemote(RemoteConfig{
		Open: func(ctx context.Context) (Inside, error) {
			here, there := net.Pipe()
			select {
			case controls <- there:
				return loopbackInside{here}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	})
	defer r.Close()
	for _, rules := range [][]RemoteRule{{first}, {second}, {first, second}} {
		r.Update(rules)
		c := <-controls
		for _, want := range rules {
			m, err := portmsg.Read(c)
			if err != nil {
				t.Fatal(err)
			}
			if q, ok := m.(*portmsg.Request); !ok || q.Port != want.At.Port() || q.Network != want.Network {
				t.Fatalf("asked %+v for %v", m, want)
			}
		}
	}
	r.Update(nil)
}
