package ike

import "testing"

func TestParseIdentity(t *testing.T) {
	for _, tt := range []struct {
		text string
		typ  IDType
		data string
	}{
		{"gw.example.org", IDFQDN, "gw.example.org"},
		{"carol", IDFQDN, "carol"},
		{"carol@example.org", IDRFC822Addr, "carol@example.org"},
		{"192.0.2.1", IDIPv4Addr, "\xc0\x00\x02\x01"},
		{"2001:db8::1", IDIPv6Addr, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
		{"@#00ff", IDKeyID, "\x00\xff"},
	} {
		id, err := ParseIdentity(tt.text)
		if err != nil || id.Type != tt.typ || string(id.Data) != tt.data {
			t.Errorf("%q is read as %d %q, %v", tt.text, id.Type, id.Data, err)
		}
		if id.String() != tt.text {
			t.Errorf("%q is written as %q", tt.text, id.String())
		}
	}
	for _, bad := range []string{"", "@#", "@#0", "a b", "\x00", string(make([]byte, 256))} {
		if id, err := ParseIdentity(bad); err == nil {
			t.Errorf("%q is read as %v", bad, id)
		}
	}
}
