package web

import (
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAuthority(t *testing.T) {
	for _, c := range []struct {
		o      Options
		remote string
		want   string
	}{
		{Options{}, "192.0.2.1:80", "192.0.2.1"},
		{Options{}, "192.0.2.1:443", "192.0.2.1:443"},
		{Options{TLS: true}, "[2001:db8::1]:443", "[2001:db8::1]"},
		{Options{TLS: true, ServerName: "2001:db8::1"}, "[2001:db8::1]:443", "[2001:db8::1]"},
		{Options{TLS: true}, "[2001:db8::1]:8443", "[2001:db8::1]:8443"},
		{Options{TLS: true, ServerName: "a.example"}, "192.0.2.1:8443", "a.example:8443"},
		{Options{TLS: true, ServerName: "a.example", Host: "b.example"}, "192.0.2.1:8443", "b.example"},
	} {
		if got := c.o.Authority(netip.MustParseAddrPort(c.remote)); got != c.want {
			t.Errorf("%+v to %s: %q, want %q", c.o, c.remote, got, c.want)
		}
	}
}

// TestLocation has what a portal may send; it ends on a terminal.
func TestLocation(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"http://portal.example/login?mac=02", "http://portal.example/login?mac=02"},
		{"/login", "http://server.example/login"},
		{"https://user:secret@portal.example/", "https://portal.example/"},
		{"http://portal.example/\x1b[2J", ""},
		{"javascript:alert(1)", ""},
		{"file:///etc/passwd", ""},
		{"http://portal.example/" + strings.Repeat("a", 600), ""},
		{"", ""},
		{"http://portal.example/\u202egpj", "http://portal.example/%E2%80%AEgpj"},
	} {
		if got := location(tt.in, "server.example"); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzLocation(f *testing.F) {
	f.Add("http://portal.example/")
	f.Fuzz(func(t *testing.T, in string) {
		got := location(in, "server.example:443")
		if len(got) > maxLocation || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q", got)
		}
	})
}

// TestRefusal: a proxy's errors are no portal.
func TestRefusal(t *testing.T) {
	for code, want := range map[int]bool{200: false, 302: false, 400: true, 404: true, 502: true, 511: false} {
		if got := (&StatusError{Code: code}).Refusal(); got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}
