package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// names resolves from a table and counts.
type names struct {
	mu    sync.Mutex
	hosts map[string]string // addresses, separated by spaces
	asked int
}

func (n *names) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	list, ok := n.hosts[host]
	switch {
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case list == "silent":
		return nil, &net.DNSError{Err: "timeout", Name: host, IsTimeout: true}
	}
	var as []netip.Addr
	for _, f := range strings.Fields(list) {
		as = append(as, netip.MustParseAddr(f))
	}
	return as, nil
}

// base answers by address: nil connects, errHang waits for the context.
var errHang = errors.New("hang")

type base struct {
	mu     sync.Mutex
	begun  time.Time
	answer map[string]error
	dialed []string // with the time since begun
	open   int
}

type counted struct {
	net.Conn
	b    *base
	addr netip.AddrPort
}

func (c *counted) Close() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.open--
	return nil
}

func (b *base) dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	b.mu.Lock()
	b.dialed = append(b.dialed, fmt.Sprintf("%v@%v", addr, time.Since(b.begun)))
	err, known := b.answer[addr.Addr().String()]
	b.mu.Unlock()
	switch {
	case !known:
		return nil, fmt.Errorf("dial %v: must not be dialled", addr)
	case err == errHang:
		<-ctx.Done()
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	}
	b.mu.Lock()
	b.open++
	b.mu.Unlock()
	return &counted{b: b, addr: addr}, nil
}

func TestDialer(t *testing.T) {
	hosts := map[string]string{
		"one": "192.0.2.1", "both": "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2", "rebind": "127.0.0.1 192.0.2.1 ::ffff:10.0.0.1",
		"inside": "10.0.0.1 127.0.0.1", "silent": "silent", "none": "",
		"many": "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 192.0.2.9 192.0.2.10",
	}
	for _, tt := range []struct {
		name, network, address string
		answer                 map[string]error
		dialed                 string
		want                   string // the address reached
		err                    error
	}{
		{"a literal", "tcp", "192.0.2.1:80", map[string]error{"192.0.2.1": nil}, "192.0.2.1:80@0s", "192.0.2.1:80", nil},
		{"a name", "tcp", "one:80", map[string]error{"192.0.2.1": nil}, "192.0.2.1:80@0s", "192.0.2.1:80", nil},
		{"a denied literal", "tcp", "127.0.0.1:22", nil, "", "", ErrNotAllowed},
		{"a denied IPv6 literal", "tcp", "[::ffff:169.254.169.254]:80", nil, "", "", ErrNotAllowed},
		{"a name that leads inside", "tcp", "inside:80", nil, "", "", ErrNotAllowed},
		{"a name that leads inside too", "tcp", "rebind:80", map[string]error{"192.0.2.1": nil}, "192.0.2.1:80@0s", "192.0.2.1:80", nil},
		{"no such name", "tcp", "nobody:80", nil, "", "", ErrHostUnreachable},
		{"a name without address", "tcp", "none:80", nil, "", "", ErrHostUnreachable},
		{"no answer from the resolver", "tcp", "silent:80", nil, "", "", ErrTimeout},
		{"the other family", "tcp6", "192.0.2.1:80", nil, "", "", ErrHostUnreachable},
		{"families in turn, the silent one first", "tcp", "both:80",
			map[string]error{"2001:db8::1": errHang, "192.0.2.1": nil},
			"[2001:db8::1]:80@0s 192.0.2.1:80@250ms", "192.0.2.1:80", nil},
		{"a refusal does not wait", "tcp", "both:80",
			map[string]error{"2001:db8::1": syscall.ECONNREFUSED, "192.0.2.1": errHang, "2001:db8::2": nil},
			"[2001:db8::1]:80@0s 192.0.2.1:80@0s [2001:db8::2]:80@250ms", "[2001:db8::2]:80", nil},
		{"the first error counts", "tcp", "both:80",
			map[string]error{"2001:db8::1": syscall.ENETUNREACH, "192.0.2.1": syscall.ECONNREFUSED, "2001:db8::2": syscall.ENETUNREACH, "192.0.2.2": syscall.ECONNREFUSED},
			"[2001:db8::1]:80@0s 192.0.2.1:80@0s [2001:db8::2]:80@0s 192.0.2.2:80@0s", "", syscall.ENETUNREACH},
		{"silence everywhere", "tcp", "one:80", map[string]error{"192.0.2.1": errHang}, "192.0.2.1:80@0s", "", context.DeadlineExceeded},
		{"eight addresses and no more", "tcp4", "many:80",
			map[string]error{"192.0.2.1": syscall.ECONNREFUSED, "192.0.2.2": syscall.ECONNREFUSED, "192.0.2.3": syscall.ECONNREFUSED, "192.0.2.4": syscall.ECONNREFUSED,
				"192.0.2.5": syscall.ECONNREFUSED, "192.0.2.6": syscall.ECONNREFUSED, "192.0.2.7": syscall.ECONNREFUSED, "192.0.2.8": syscall.ECONNREFUSED},
			"192.0.2.1:80@0s 192.0.2.2:80@0s 192.0.2.3:80@0s 192.0.2.4:80@0s 192.0.2.5:80@0s 192.0.2.6:80@0s 192.0.2.7:80@0s 192.0.2.8:80@0s",
			"", syscall.ECONNREFUSED},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &names{hosts: hosts}
				b := &base{begun: time.Now(), answer: tt.answer}
				d := &Dialer{Resolver: n, Base: b.dial}
				c, err := d.DialContext(t.Context(), tt.network, tt.address)
				if !errors.Is(err, tt.err) {
					t.Fatalf("DialContext gives %v, want %v", err, tt.err)
				}
				if got := strings.Join(b.dialed, " "); got != tt.dialed {
					t.Errorf("dialed %s, want %s", got, tt.dialed)
				}
				if n.asked > 1 {
					t.Errorf("resolved %d times; the second answer may differ from the one checked", n.asked)
				}
				if err != nil {
					if b.open != 0 {
						t.Errorf("%d connections are left", b.open)
					}
					if tt.err == context.DeadlineExceeded && time.Since(b.begun) != defaultTimeout {
						t.Errorf("gave up after %v", time.Since(b.begun))
					}
					return
				}
				if got := c.(*counted).addr.String(); got != tt.want || b.open != 1 {
					t.Errorf("reached %s with %d connections open, want %s", got, b.open, tt.want)
				}
			})
		})
	}
}

// An attempt that succeeds although another has won is closed.
func TestLateWinnerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &base{answer: map[string]error{"192.0.2.1": nil, "192.0.2.2": nil}}
		d := &Dialer{
			Resolver: &names{hosts: map[string]string{"two": "192.0.2.1 192.0.2.2"}},
			Base: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
				if addr.Addr() == netip.MustParseAddr("192.0.2.1") {
					<-ctx.Done() // and succeeds all the same
				}
				return b.dial(ctx, network, addr)
			},
		}
		c, err := d.DialContext(t.Context(), "tcp", "two:80")
		if err != nil || c.(*counted).addr.Addr().String() != "192.0.2.2" || b.open != 1 {
			t.Errorf("DialContext gives %v, %v with %d connections open", c, err, b.open)
		}
	})
}

func TestBadAddresses(t *testing.T) {
	d := &Dialer{Resolver: &names{}, Base: (&base{}).dial}
	for _, a := range []string{"", "x", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:http", ":80", "[::1:80"} {
		if c, err := d.DialContext(t.Context(), "tcp", a); err == nil {
			t.Errorf("%q gives %v", a, c)
		}
	}
	if _, err := d.DialContext(t.Context(), "udp", "192.0.2.1:80"); err == nil {
		t.Error("UDP is dialled")
	}
}

func TestReplyCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want uint8
	}{
		{nil, 0},
		{errors.New("something else"), 1},
		{&DeniedError{}, 2},
		{ErrNetworkUnreachable, 3}, {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errnoNetUnreachable)}, 3},
		{ErrHostUnreachable, 4}, {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errnoHostUnreachable)}, 4},
		{ErrRefused, 5}, {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errnoRefused)}, 5},
		{ErrTimeout, 6}, {errnoTimedOut, 6}, {context.DeadlineExceeded, 6}, {os.ErrDeadlineExceeded, 6},
		{io.EOF, 1},
	} {
		if got := replyCode(tt.err); got != tt.want {
			t.Errorf("%v gives reply %d, want %d", tt.err, got, tt.want)
		}
	}
}
