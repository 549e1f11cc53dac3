package socks

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/things-go/go-socks5/statute"
	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/client/front"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a connection that has all answers ready and notes what is written.
type script struct {
	net.Conn
	in     *bytes.Reader
	writes [][]byte
}

func (s *script) Read(b []byte) (int, error) { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error) {
	s.writes = append(s.writes, bytes.Clone(b))
	return len(b), nil
}

func TestRequest(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, tt := range []struct{ address, want string }{
		{"192.0.2.7:80", "\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50"},
		{"[2001:db8::7]:443", "\x05\x01\x00\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x01\xbb"},
		{"[::ffff:192.0.2.7]:80", "\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50"},
		{"example.org:65535", "\x05\x01\x00\x05\x01\x00\x03\x0bexample.org\xff\xff"},
		{long + ":1", "\x05\x01\x00\x05\x01\x00\x03\xff" + long + "\x00\x01"},
	} {
		s := &script{in: bytes.NewReader([]byte("\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"))}
		if err := Connect(s, tt.address); err != nil {
			t.Errorf("%s: %v", tt.address, err)
		}
		if len(s.writes) != 1 || string(s.writes[0]) != tt.want {
			t.Errorf("%s: writes %x, want one of %x", tt.address, s.writes, tt.want)
		}
		// The library's server reads the same.
		r := bytes.NewReader([]byte(tt.want))
		if _, err := statute.ParseMethodRequest(r); err != nil {
			t.Error(err)
		}
		if q, err := statute.ParseRequest(r); err != nil || q.Command != statute.CommandConnect || r.Len() != 0 {
			t.Errorf("%s: read back as %+v, %v, %d bytes left", tt.address, q, err, r.Len())
		}
	}
	for _, bad := range []string{"", "example.org", "example.org:0", "example.org:65536", "example.org:http", ":80", long + "n:1", "[fe80::1%eth0]:80"} {
		s := &script{in: bytes.NewReader(nil)}
		if err := Connect(s, bad); err == nil || len(s.writes) > 0 {
			t.Errorf("Connect(%q) gives %v and writes %x", bad, err, s.writes)
		}
	}
}

func TestReplies(t *testing.T) {
	const ok = "\x05\x00"
	for _, tt := range []struct {
		name, in string
		want     error // nil: success
	}{
		{"IPv4", ok + "\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50", nil},
		{"IPv6", ok + "\x05\x00\x00\x04" + strings.Repeat("6", 18), nil},
		{"name", ok + "\x05\x00\x00\x03\x05hello\x00\x50", nil},
		{"longest name", ok + "\x05\x00\x00\x03\xff" + strings.Repeat("n", 257), nil},
		{"empty name", ok + "\x05\x00\x00\x03\x00\x00\x50", nil},
		{"not allowed", ok + "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", front.ErrNotAllowed},
		{"network unreachable", ok + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", front.ErrNetworkUnreachable},
		{"host unreachable", ok + "\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00", front.ErrHostUnreachable},
		{"refused", ok + "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", front.ErrRefused},
		{"timed out", ok + "\x05\x06\x00\x01\x00\x00\x00\x00\x00\x00", front.ErrTimeout},
		{"wants a password", "\x05\x02", ErrProtocol},
		{"no method", "\x05\xff", ErrProtocol},
		{"SOCKS4 to the greeting", "\x04\x00", ErrProtocol},
		{"SOCKS4 to the request", ok + "\x04\x00\x00\x01\x00\x00\x00\x00\x00\x00", ErrProtocol},
		{"unknown address type", ok + "\x05\x00\x00\x02\x00\x00\x00\x00\x00\x00", ErrProtocol},
		{"nothing", "", io.ErrUnexpectedEOF},
		{"end before the reply", ok, io.ErrUnexpectedEOF},
		{"end in the reply", ok + "\x05\x00\x00\x01\x00\x00\x00\x00\x00", io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{in: bytes.NewReader([]byte(tt.in + "data"))}
			if tt.want == io.ErrUnexpectedEOF {
				s.in = bytes.NewReader([]byte(tt.in))
			}
			if err := Connect(s, "example.org:80"); !errors.Is(err, tt.want) {
				t.Fatalf("Connect gives %v, want %v", err, tt.want)
			}
			if rest, _ := io.ReadAll(s.in); tt.want == nil && string(rest) != "data" {
				t.Errorf("behind the reply stands %q, want the data", rest)
			}
		})
	}
	for _, code := range []byte{1, 7, 8, 200} {
		s := &script{in: bytes.NewReader([]byte(ok + "\x05" + string([]byte{code}) + "\x00\x01\x00\x00\x00\x00\x00\x00"))}
		var re *ReplyError
		if err := Connect(s, "example.org:80"); !errors.As(err, &re) || re.Code != code || re.Unwrap() != nil {
			t.Errorf("reply %d gives %v", code, err)
		}
	}
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50data"))
	f.Add([]byte("\x05\x00\x05\x05\x00\x03\x05hello\x00\x50"))
	f.Add([]byte("\x05\x00\x05\x00\x00\x03\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		err := readReplies(in)
		used := b[:len(b)-in.Len()]
		// What the library's client takes, this one takes, and not a byte more.
		r := bytes.NewReader(b)
		var lib error
		var reply statute.Reply
		if head := make([]byte, 2); err == nil {
			_, _ = io.ReadFull(r, head)
			if reply, lib = statute.ParseReply(r); lib != nil || reply.Response != 0 {
				t.Fatalf("%x is a success here, and %+v, %v to the library", b, reply, lib)
			}
			if n := len(b) - r.Len(); n != len(used) {
				t.Fatalf("%x: read %d bytes, the library %d", b, len(used), n)
			}
		}
	})
}

// A connection on which nothing was read is closed without a reset: what was
// written arrives.
func TestBegunCloseKeepsWhatWasWritten(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	want := bytes.Repeat([]byte("upload"), 500_000)
	got := make(chan []byte, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		// Greeting and request for an IPv4 address; the replies come before the data
		// has been read.
		if _, err := io.ReadFull(c, make([]byte, 3+10)); err != nil {
			t.Error(err)
		}
		if _, err := c.Write([]byte{5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Error(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("after %d bytes: %v", len(b), err)
		}
		got <- b
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	b, err := Begin(c, "192.0.2.1:80", func(err error) { answered <- err })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want) {
		t.Errorf("%d bytes arrived of %d", len(b), len(want))
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read after Close: %v", err)
	}
}
