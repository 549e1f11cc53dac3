package portmsg

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var examples = []struct {
	name    string
	message Message
	hex     string
}{
	{"an inner port", &Request{ID: 1, Network: "tcp", Port: 80, To: 40000}, "0008 01 0001 06 9c40 0050"},
	{"IPv4", &Request{ID: 0x102, Network: "udp", At: netip.MustParseAddr("192.0.2.7"), Port: 53, To: 1}, "000c 01 0102 11 0001 0035 c0000207"},
	{"IPv6", &Request{ID: 3, Network: "tcp", At: netip.MustParseAddr("2001:db8::1"), Port: 8080, To: 2}, "0018 01 0003 06 0002 1f90 20010db8000000000000000000000001"},
	{"yes", &Reply{ID: 3}, "0004 02 0003 00"},
	{"no", &Reply{ID: 3, Status: InUse, Reason: "why"}, "0007 02 0003 02 776879"},
	{"keepalive", &Keepalive{}, "0001 03"},
}

func TestMessages(t *testing.T) {
	for _, tt := range examples {
		want, err := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Append([]byte("x"), tt.message)
		if err != nil || !bytes.Equal(got[1:], want) {
			t.Errorf("%s: %x, %v", tt.name, got, err)
		}
		back, err := Read(bytes.NewReader(want))
		if err != nil || !reflect.DeepEqual(back, tt.message) {
			t.Errorf("%s: %+v, %v", tt.name, back, err)
		}
		for i := range want {
			if m, err := Read(bytes.NewReader(want[:i])); err == nil {
				t.Errorf("%s cut to %d bytes: %+v", tt.name, i, m)
			}
		}
	}
	long, err := Append(nil, &Reply{Reason: strings.Repeat("long", 100)})
	if err != nil || len(long) != 2+4+maxReason {
		t.Errorf("a long reason: %d bytes, %v", len(long), err)
	}
}

func TestNoMessages(t *testing.T) {
	for name, text := range map[string]string{
		"nothing in it": "0000", "too long": "0201", "another type": "000109", "keepalive with more": "00020300",
		"another protocol": "0008010001079c400050", "from port 0": "0008010001069c400000", "to port 0": "00080100010600000050",
		"half an address": "000a010001069c400050c000", "reply of nothing": "000302ffff", "an endless reason": "0104" + "02000000" + strings.Repeat("61", 256),
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := Read(bytes.NewReader(b)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for _, r := range []*Request{{Network: "sctp", Port: 1, To: 1}, {Network: "tcp", To: 1}, {Network: "tcp", Port: 1},
		{Network: "tcp", Port: 1, To: 1, At: netip.MustParseAddr("fe80::1%eth0")}} {
		if b, err := Append(nil, r); !errors.Is(err, ErrSyntax) {
			t.Errorf("%+v: %x, %v", r, b, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, tt := range examples {
		b, _ := Append(nil, tt.message)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := Append(nil, m)
		if err != nil || !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("%x is %+v, which is %x, %v", b, m, again, err)
		}
	})
}
