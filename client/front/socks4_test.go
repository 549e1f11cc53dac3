package front

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

var socks4Requests = []struct {
	name, bytes, want string
}{
	{"address", "\x04\x01\x00\x50\xc0\x00\x02\x01me\x00", "192.0.2.1:80"},
	{"name", "\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.org\x00", "example.org:443"},
	{"no name", "\x04\x01\x01\xbb\x00\x00\x00\x01\x00\x00", ""},
	{"a name that is none", "\x04\x01\x01\xbb\x00\x00\x00\x01\x00a]b\x00", ""},
	{"no port", "\x04\x01\x00\x00\xc0\x00\x02\x01\x00", ""},
	{"BIND", "\x04\x02\x00\x50\xc0\x00\x02\x01\x00", ""},
	{"long user", "\x04\x01\x00\x50\xc0\x00\x02\x01" + strings.Repeat("u", 300) + "\x00", ""},
	{"cut off", "\x04\x01\x00\x50\xc0", ""},
}

func TestReadSOCKS4(t *testing.T) {
	for _, tt := range socks4Requests {
		got, err := readSOCKS4(bufio.NewReader(strings.NewReader(tt.bytes)))
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func FuzzReadSOCKS4(f *testing.F) {
	for _, tt := range socks4Requests {
		f.Add([]byte(tt.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		address, err := readSOCKS4(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "0" {
			t.Errorf("address %q", address)
		}
	})
}

// A request, first bytes in the same write, and what becomes of both.
func TestSOCKS4(t *testing.T) {
	for _, tt := range []struct {
		name, user string
		refuse     bool
		code       byte
	}{
		{"granted", "", false, socks4Granted},
		{"target refuses", "", true, socks4Rejected},
		{"a password is wanted", "user", false, socks4Rejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan string, 1)
			proxy := New(Config{Username: tt.user, Password: "p", Dial: func(_ context.Context, _, address string) (net.Conn, error) {
				asked <- address
				if tt.refuse {
					return nil, ErrRefused
				}
				a, b := net.Pipe()
				go func() { _, _ = io.Copy(b, b); _ = b.Close() }()
				return a, nil
			}})
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- proxy.Serve(ln) }()
			defer func() { _ = proxy.Close(); <-served }()
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(c, "\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.org\x00hello"); err != nil {
				t.Fatal(err)
			}
			var reply [8]byte
			if _, err := io.ReadFull(c, reply[:]); err != nil || reply[0] != 0 || reply[1] != tt.code {
				t.Fatalf("reply %x, %v", reply, err)
			}
			if tt.code != socks4Granted {
				if _, err := c.Read(reply[:]); err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after a refusal: %v", err)
				}
				return
			}
			if got := <-asked; got != "example.org:443" {
				t.Errorf("asked for %q", got)
			}
			var hello [5]byte
			if _, err := io.ReadFull(c, hello[:]); err != nil || string(hello[:]) != "hello" {
				t.Errorf("%q, %v", hello, err)
			}
		})
	}
}
