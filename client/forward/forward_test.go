package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/things-go/go-socks5/statute"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	for _, good := range []string{"tcp 127.0.0.1:2222 git.example.org:22", "udp [::1]:53 9.9.9.9:53", "tcp 127.0.0.1:0 [2001:db8::1]:443"} {
		r, err := Parse(good)
		if err != nil || r.String() != good {
			t.Errorf("%q: %v, %v", good, r, err)
		}
	}
	for _, bad := range []string{"", "tcp", "sctp 127.0.0.1:1 a:1", "tcp localhost:1 a:1", "tcp 127.0.0.1:1 a", "tcp 127.0.0.1:1 a:0",
		"tcp 127.0.0.1:1 :1", "tcp 127.0.0.1:1 a:1 b", "udp 127.0.0.1:1 " + strings.Repeat("a", 256) + ":1"} {
		if r, err := Parse(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, r)
		}
	}
}

func must(t *testing.T, rule string) Rule {
	r, err := Parse(rule)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStreams(t *testing.T) {
	asked := make(chan string, 1)
	s, err := Listen(Config{
		Rules: []Rule{must(t, "tcp 127.0.0.1:0 git.example.org:22"), must(t, "tcp 127.0.0.1:0 nobody.example:1")},
		Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "nobody") {
				return nil, errors.New("refused")
			}
			asked <- address
			a, b := net.Pipe()
			go func() { _, _ = io.Copy(b, b); _ = b.Close() }()
			return a, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := net.Dial("tcp", s.at(t, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	var b [5]byte
	if _, err := io.ReadFull(c, b[:]); err != nil || string(b[:]) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if got := <-asked; got != "git.example.org:22" {
		t.Errorf("asked for %q", got)
	}
	dead, err := net.Dial("tcp", s.at(t, 1).String())
	if err == nil { // the reset may be as fast as the connection
		defer dead.Close()
		_ = dead.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = dead.Read(b[:])
	}
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a target that is not there: %v, want a reset", err)
	}
	// The port is in use now, and the error says which rule it is about.
	taken := netip.MustParseAddrPort(s.at(t, 0).String())
	if _, err := Listen(Config{Rules: []Rule{{"tcp", taken, "a:1"}}}); err == nil || !strings.Contains(err.Error(), "a:1") {
		t.Errorf("a port in use: %v", err)
	}
}

// Two programs use one UDP port, and each gets its own answers.
func TestDatagrams(t *testing.T) {
	s, err := Listen(Config{
		Rules: []Rule{must(t, "udp 127.0.0.1:0 dns.example:53")},
		Associate: func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				buf := make([]byte, 1<<16)
				for {
					n, err := b.Read(buf)
					if err != nil {
						return
					}
					d, err := statute.ParseDatagram(buf[:n])
					if err != nil || d.DstAddr.FQDN != "dns.example" || d.DstAddr.Port != 53 {
						t.Errorf("sent to %v: %v", d.DstAddr, err)
					}
					answer, _ := statute.NewDatagram("192.0.2.53:53", append([]byte("re: "), d.Data...))
					_, _ = b.Write(answer.Bytes())
				}
			}()
			return a, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, question := range []string{"first", "second"} {
		c, err := net.Dial("udp", s.at(t, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		for range 2 {
			if _, err := io.WriteString(c, question); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "re: "+question {
				t.Errorf("%q, %v", b[:n], err)
			}
		}
	}
}

// at is where the port of a rule is.
func (s *Set) at(t *testing.T, rule int) net.Addr {
	t.Helper()
	switch c := s.open[s.c.Rules[rule]].(type) {
	case net.Listener:
		return c.Addr()
	case net.PacketConn:
		return c.LocalAddr()
	}
	t.Fatalf("rule %d has no port", rule)
	return nil
}

// Other rules leave the ports of those that stay, and open streams, alone.
func TestUpdate(t *testing.T) {
	dial := func(_ context.Context, _, address string) (net.Conn, error) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(b, io.MultiReader(strings.NewReader(address), b)); _ = b.Close() }()
		return a, nil
	}
	stay, go1, come := must(t, "tcp 127.0.0.1:0 stay:1"), must(t, "tcp 127.0.0.1:0 go:1"), must(t, "udp 127.0.0.1:0 come:1")
	s, err := Listen(Config{Rules: []Rule{stay, go1, come}[:2], Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at, gone := s.at(t, 0), s.at(t, 1)
	c, err := net.Dial("tcp", gone.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := func(c net.Conn, text string) {
		t.Helper()
		b := make([]byte, len(text))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
			t.Errorf("got %q, %v, want %q", b, err, text)
		}
	}
	want(c, "go:1")
	taken := must(t, "tcp "+at.String()+" taken:1")
	if err := s.Update([]Rule{stay, come, taken}); err == nil || !strings.Contains(err.Error(), taken.String()) {
		t.Errorf("a port in use: %v", err)
	}
	if s.at(t, 1).String() != gone.String() || s.open[come] != nil {
		t.Error("a failure has changed something")
	}
	if err := s.Update([]Rule{come, stay}); err != nil {
		t.Fatal(err)
	}
	if s.at(t, 0).String() != at.String() || s.open[come] == nil {
		t.Error("the port that stays has changed, or that which comes is not there")
	}
	if other, err := net.Dial("tcp", gone.String()); err == nil {
		other.Close()
		t.Error("the port that goes is there")
	}
	if _, err := c.Write([]byte("still")); err != nil {
		t.Fatal(err)
	}
	want(c, "still")
}
