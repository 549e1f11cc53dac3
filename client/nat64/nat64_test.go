package nat64

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The table of RFC 6052, Section 2.4, and the Well-Known Prefix with an address that
// it may be used for.
func TestSynthesize(t *testing.T) {
	for _, tt := range []struct{ prefix, v4, want string }{
		{"2001:db8::/32", "192.0.2.33", "2001:db8:c000:221::"},
		{"2001:db8:100::/40", "192.0.2.33", "2001:db8:1c0:2:21::"},
		{"2001:db8:122::/48", "192.0.2.33", "2001:db8:122:c000:2:2100::"},
		{"2001:db8:122:300::/56", "192.0.2.33", "2001:db8:122:3c0:0:221::"},
		{"2001:db8:122:344::/64", "192.0.2.33", "2001:db8:122:344:c0:2:2100::"},
		{"2001:db8:122:344::/96", "192.0.2.33", "2001:db8:122:344::192.0.2.33"},
		{"64:ff9b::/96", "8.8.8.8", "64:ff9b::808:808"},
		{"64:ff9b::/96", "::ffff:8.8.8.8", "64:ff9b::808:808"},
	} {
		got, ok := Synthesize(netip.MustParsePrefix(tt.prefix), netip.MustParseAddr(tt.v4))
		if want := netip.MustParseAddr(tt.want); !ok || got != want {
			t.Errorf("%s below %s is %v, want %v", tt.v4, tt.prefix, got, want)
		}
	}
	for _, tt := range []struct{ prefix, v4 string }{
		{"64:ff9b::/96", "192.168.1.1"}, {"64:ff9b::/96", "198.51.100.2"}, // not global
		{"2001:db8::/33", "8.8.8.8"}, {"10.0.0.0/8", "8.8.8.8"}, {"2001:db8::/32", "2001:db8::1"},
		{"2001:db8:0:0:100::/96", "8.8.8.8"}, // bits 64 to 71 must be zero
	} {
		if got, ok := Synthesize(netip.MustParsePrefix(tt.prefix), netip.MustParseAddr(tt.v4)); ok {
			t.Errorf("%s below %s is %v", tt.v4, tt.prefix, got)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer []string
		want   []string
	}{
		{"nothing", nil, nil},
		{"no NAT64", []string{"192.0.0.170", "192.0.0.171"}, nil},
		{"the well-known one", []string{"64:ff9b::192.0.0.170", "64:ff9b::192.0.0.171", "192.0.0.170"}, []string{"64:ff9b::/96"}},
		{"one address is enough", []string{"64:ff9b::192.0.0.171"}, []string{"64:ff9b::/96"}},
		{"a short one, with a suffix", []string{"2001:db8:c000:aa::1234"}, []string{"2001:db8::/32"}},
		{"around the reserved octet", []string{"2001:db8:122:3c0:0:aa::", "2001:db8:122:344:c0:0:aa00::"}, []string{"2001:db8:122:300::/56", "2001:db8:122:344::/64"}},
		{"somebody else's page", []string{"2001:db8::80", "::ffff:192.0.0.170", "fe80::192.0.0.170%eth0"}, nil},
		{"the reserved octet is not zero", []string{"2001:db8:0:0:100::192.0.0.170"}, nil},
		// RFC 7050, Section 3: the prefix itself holds an address of the name.
		{"two lengths fit and nothing decides", []string{"2001:db8:c000:aa::192.0.0.170"}, nil},
		{"two lengths fit and the other address decides",
			[]string{"2001:db8:c000:aa::192.0.0.170", "2001:db8:c000:aa::192.0.0.171"}, []string{"2001:db8:c000:aa::/96"}},
		{"more than are believed", []string{"64:1::192.0.0.170", "64:2::192.0.0.170", "64:3::192.0.0.170", "64:4::192.0.0.170", "64:5::192.0.0.170"},
			[]string{"64:1::/96", "64:2::/96", "64:3::/96", "64:4::/96"}},
	} {
		var answer []netip.Addr
		for _, a := range tt.answer {
			answer = append(answer, netip.MustParseAddr(a))
		}
		var want []netip.Prefix
		for _, p := range tt.want {
			want = append(want, netip.MustParsePrefix(p))
		}
		if got := Prefixes(answer); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}

func TestDiscover(t *testing.T) {
	failed := errors.New("no name server")
	lookup := func(answer []netip.Addr, err error) func(context.Context, string) ([]netip.Addr, error) {
		return func(_ context.Context, host string) ([]netip.Addr, error) {
			if host != "ipv4only.arpa." {
				t.Errorf("asked for %s", host)
			}
			return answer, err
		}
	}
	if _, err := Discover(t.Context(), lookup(nil, failed)); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if _, err := Discover(t.Context(), lookup(addresses, nil)); !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
	got, err := Discover(t.Context(), lookup([]netip.Addr{netip.MustParseAddr("64:ff9b::192.0.0.170")}, nil))
	if err != nil || !slices.Equal(got, []netip.Prefix{wellKnown}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// What a prefix gives it is found by, and nothing that a name server answers panics.
func FuzzPrefixes(f *testing.F) {
	f.Add([]byte("\x00\x64\xff\x9b\x00\x00\x00\x00\x00\x00\x00\x00\xc0\x00\x00\xaa"))
	f.Add([]byte("\x20\x01\x0d\xb8\xc0\x00\x00\xaa\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var answer []netip.Addr
		for ; len(b) >= 16; b = b[16:] {
			answer = append(answer, netip.AddrFrom16([16]byte(b)))
		}
		for _, p := range Prefixes(answer) {
			a, ok := embed(p, addresses[0])
			c, ok2 := embed(p, addresses[1])
			if !ok || !ok2 || !slices.ContainsFunc(answer, func(x netip.Addr) bool { return p.Contains(x) }) {
				t.Fatalf("%v gives %v and %v", p, a, c)
			}
		}
	})
}
