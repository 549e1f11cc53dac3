package regmsg

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var cookie = Cookie{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}

func hash(c byte) (h [32]byte) {
	for i := range h {
		h[i] = c
	}
	return h
}

// vectors are written by hand from docs/protocol.md.
var vectors = []struct {
	name    string
	message Message
	hex     string
}{
	{
		"short request by UDP over IPv4",
		&Request{
			Lifetime: LifetimeInfinity, HomeAddress: netip.MustParseAddr("10.9.0.2"), HomeAgent: netip.MustParseAddr("10.9.0.1"),
			Identification: 0x1122334455667788, Number: 7,
			Sent: transports.Description{Encapsulation: transports.UDP,
				Source: netip.MustParseAddrPort("192.168.1.10:4500"), Destination: netip.MustParseAddrPort("198.51.100.1:443")},
			Supported: []transports.Name{transports.UDP, transports.TCP},
		},
		`01 20 ffff 0a090002 0a090001 c0a8010a 1122334455667788
		 26 00 002d 00007ed9 0001
		 01 0004 00000007
		 04 0012 03 756470 04 c0a8010a 1194 04 c6336401 01bb
		 06 0008 03 756470 03 746370`,
	},
	{
		"padded request by WebSocket, everything IPv6, with a receive state",
		&Request{
			Lifetime: 60, HomeAddress: netip.MustParseAddr("fd00::2"), HomeAgent: netip.MustParseAddr("fd00::1"),
			Identification: 1, Number: 0xffffffff,
			Sent: transports.Description{Encapsulation: transports.WebSocket,
				Source: netip.MustParseAddrPort("[2001:db8::a]:50000"), Destination: netip.AddrPort{},
				Authority: "a.example", Path: "/x", Proxy: "p:3128", CertHash: hash(0xcc)},
			Received:   ReceiveState{SPI: 0xdeadbeef, Highest: 1 << 40, Missing: []byte{0x80, 0x00}},
			PaddedSize: 1400, Probe: true,
		},
		`01 20 003c 00000000 00000000 00000000 0000000000000001
		 26 00 00a2 00007ed9 0001
		 01 0004 ffffffff
		 02 0010 fd000000000000000000000000000002
		 03 0010 fd000000000000000000000000000001
		 04 0052 09 776562736f636b6574 06 20010db800000000000000000000000a c350 00
		    09 612e6578616d706c65 02 2f78 06 703a33313238
		    cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
		 0a 000e deadbeef 0000010000000000 8000
		 0b 0002 0578
		 0c 0001 01`,
	},
	{
		"confirmation that decides",
		&Request{
			Lifetime: LifetimeInfinity, Identification: 2, Number: 3,
			Sent:     transports.Description{Encapsulation: "tcp"},
			Decision: 2, PaddedSize: 1, Cookie: cookie, Trigger: TriggerOf("socket"),
		},
		`01 20 ffff 00000000 00000000 00000000 0000000000000002
		 26 00 0037 00007ed9 0001
		 01 0004 00000003
		 04 0006 03 746370 00 00
		 0b 0002 0001
		 0d 0010 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
		 0e 0002 0002
		 80 0001 04`,
	},
	{
		"reply that saw a NAPT",
		&Reply{
			Code: CodeAccepted, Lifetime: LifetimeInfinity,
			HomeAddress: netip.MustParseAddr("10.9.0.2"), HomeAgent: netip.MustParseAddr("10.9.0.1"),
			Identification: 0x1122334455667788, Number: 7, Revision: 2, Verdict: NAPT,
			Seen: transports.Description{Encapsulation: "udp",
				Source: netip.MustParseAddrPort("203.0.113.9:61001"), Destination: netip.MustParseAddrPort("198.51.100.1:443")},
			Up: "udp", Down: "tcp",
			Offers: []Offer{{Encapsulation: "udp", Address: netip.MustParseAddrPort("198.51.100.1:443")}, {Encapsulation: "http"}},
			Sent: transports.Description{Encapsulation: "udp",
				Source: netip.MustParseAddrPort("198.51.100.1:443"), Destination: netip.MustParseAddrPort("203.0.113.9:61001")},
			PaddedSize: 1400, Validated: true, Here: true, Cookie: cookie, Decision: 0x0102,
			Heard: []Heard{{Encapsulation: "tcp", Full: true}, {Encapsulation: "http"}},
		},
		`03 00 ffff 0a090002 0a090001 1122334455667788
		 26 00 008b 00007ed9 0002
		 01 0004 00000007
		 04 0012 03 756470 04 c6336401 01bb 04 cb007109 ee49
		 05 0012 03 756470 04 cb007109 ee49 04 c6336401 01bb
		 07 0011 03 756470 04 c6336401 01bb 04 68747470 00
		 08 0008 03 756470 03 746370
		 09 0003 0002 02
		 0b 0002 0578
		 0c 0001 06
		 0d 0010 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
		 0e 0002 0102
		 81 000b 03 746370 01 04 68747470 00`,
	},
	{
		"reply that refuses",
		&Reply{Code: CodeProhibited, Number: 1},
		`03 81 0000 00000000 00000000 0000000000000000
		 26 00 001f 00007ed9 0002
		 01 0004 00000001
		 04 0003 00 00 00
		 05 0003 00 00 00
		 09 0003 0000 00`,
	},
	{
		"request for simultaneous bindings",
		&Request{Lifetime: LifetimeInfinity, Identification: 5, Number: 6, Simultaneous: true, Sent: transports.Description{Encapsulation: "udp"}},
		`01 a0 ffff 00000000 00000000 00000000 0000000000000005
		 26 00 0016 00007ed9 0001
		 01 0004 00000006
		 04 0006 03 756470 00 00`,
	},
	{
		"request that asks for an answer by other ways",
		&Request{
			Lifetime: LifetimeInfinity, Identification: 8, Number: 9, Sent: transports.Description{Encapsulation: "udp"},
			Ways: []Way{
				{Encapsulation: "udp-4500", Local: netip.MustParseAddrPort("10.1.0.2:40000"), Remote: netip.MustParseAddrPort("198.51.100.2:4500")},
				{Encapsulation: "tcp"},
			},
		},
		`01 20 ffff 00000000 00000000 00000000 0000000000000008
		 26 00 0036 00007ed9 0001
		 01 0004 00000009
		 04 0006 03 756470 00 00
		 82 001d 08 7564702d34353030 04 0a010002 9c40 04 c6336402 1194 03 746370 00 00`,
	},
	{
		"decision for two ways",
		&Request{
			Lifetime: LifetimeInfinity, Identification: 8, Number: 9, Sent: transports.Description{Encapsulation: "udp"},
			PaddedSize: 1, Cookie: cookie, Decision: 1, Down: "udp-4500",
		},
		`01 20 ffff 00000000 00000000 00000000 0000000000000008
		 26 00 003f 00007ed9 0001
		 01 0004 00000009
		 04 0006 03 756470 00 00
		 0b 0002 0001
		 0d 0010 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
		 0e 0002 0001
		 0f 0009 08 7564702d34353030`,
	},
	{
		"reply by one way",
		&Reply{Number: 1, OneWay: true},
		`03 00 0000 00000000 00000000 0000000000000000
		 26 00 0023 00007ed9 0002
		 01 0004 00000001
		 04 0003 00 00 00
		 05 0003 00 00 00
		 09 0003 0000 00
		 0c 0001 08`,
	},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			want := unhex(t, v.hex)
			got, err := v.message.AppendBinary([]byte("prefix"))
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := bytes.CutPrefix(got, []byte("prefix")); !ok || !bytes.Equal(got, want) {
				t.Errorf("append:\n got %x\nwant %x", got, want)
			}
			m, err := Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(m, v.message) {
				t.Errorf("parse:\n got %#v\nwant %#v", m, v.message)
			}
			for n := range want {
				if m, err := Parse(want[:n]); err == nil {
					t.Errorf("cut to %d bytes: got %v", n, m)
				}
			}
		})
	}
}

// TestForeign changes one vector by hand: what must be skipped is skipped and
// what must be refused is refused.
func TestForeign(t *testing.T) {
	const head = "01 20 ffff 0a090002 0a090001 c0a8010a 1122334455667788 "
	const number, sent = "01 0004 00000007 ", "04 0009 00 04 c0a8010a 1194 00 "
	const good = head + "26 00 0019 00007ed9 0001" + number + sent
	for _, tt := range []struct {
		name, hex string
		want      error
	}{
		{"element longer than the extension", head + "26 00 0019 00007ed9 0001" + number + "04 000a 00 04 c0a8010a 1194 00", ErrMalformed},
		{"as it should be", good, nil},
		{"normal extension of a vendor", good + " 86 08 0000 00000009 0001", nil},
		{"normal extension that is too short", good + " 86 07 0000 00000009 00", ErrMalformed},
		{"critical extension of a vendor", good + " 26 00 0006 00000009 0001", ErrUnsupported},
		{"our extension of another type", head + "26 00 0019 00007ed9 0002" + number + sent, ErrUnsupported},
		{"our extension twice", good + "26 00 0019 00007ed9 0001" + number + sent, ErrMalformed},
		{"extension that must be understood", good + " 20 00", ErrUnsupported},
		{"extension that may be skipped", good + " 83 02 6162", nil},
		{"element that may be skipped", head + "26 00 001d 00007ed9 0001" + number + sent + "80 0001 ff", nil},
		{"element that must be understood", head + "26 00 001d 00007ed9 0001" + number + sent + "7f 0001 ff", ErrUnsupported},
		{"elements out of order", head + "26 00 0019 00007ed9 0001" + sent + number, ErrMalformed},
		{"no number", head + "26 00 0012 00007ed9 0001" + sent, ErrMalformed},
		{"no extension", head, ErrMalformed},
		{"care-of address unlike the source", head + "26 00 0019 00007ed9 0001" + number + "04 0009 00 04 c0a8010b 1194 00", ErrMalformed},
		{"home address twice", head + "26 00 002c 00007ed9 0001" + number + "02 0010 fd000000000000000000000000000002" + sent, ErrMalformed},
		{"unknown flag", head + "26 00 001d 00007ed9 0001" + number + sent + "0c 0001 08", ErrMalformed},
		{"element with a byte too many", head + "26 00 001a 00007ed9 0001" + number + "04 000a 00 04 c0a8010a 1194 00 ff", ErrMalformed},
		{"name that is none", head + "26 00 001a 00007ed9 0001" + number + "04 000a 01 20 04 c0a8010a 1194 00", ErrMalformed},
		{"another message", "02" + head[2:], ErrUnsupported},
		{"way down without a decision", head + "26 00 0020 00007ed9 0001" + number + sent + "0f 0004 03 746370", ErrMalformed},
		{"no ways", head + "26 00 001c 00007ed9 0001" + number + sent + "82 0000", ErrMalformed},
		{"a way without a name", head + "26 00 001f 00007ed9 0001" + number + sent + "82 0003 00 00 00", ErrMalformed},
		{"a way more than there may be", head + "26 00 0035 00007ed9 0001" + number + sent + "82 0019" + strings.Repeat(" 02 7878 00 00", MaxWays+1), ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(unhex(t, tt.hex)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	many := make([]transports.Name, MaxNames+1)
	offers := make([]Offer, MaxNames+1)
	for i := range many {
		many[i], offers[i].Encapsulation = "udp", "udp"
	}
	for name, m := range map[string]Message{
		"too many encapsulations": &Request{Supported: many},
		"too many offers":         &Reply{Offers: offers},
		"name with a space":       &Request{Sent: transports.Description{Encapsulation: "a b"}},
		"empty name in a list":    &Request{Supported: []transports.Name{""}},
		"long path":               &Request{Sent: transports.Description{Path: strings.Repeat("x", MaxString+1)}},
		"long receive state":      &Request{Received: ReceiveState{Missing: make([]byte, MaxMissing+1)}},
		"too many ways":           &Request{Ways: make([]Way, MaxWays+1)},
		"way without a name":      &Request{Ways: make([]Way, 1)},
		"way down, not decided":   &Request{Down: "udp"},
		"verdict that is none":    &Reply{Verdict: numVerdicts},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := m.AppendBinary([]byte("prefix"))
			if !errors.Is(err, ErrTooLong) || string(b) != "prefix" {
				t.Errorf("got %x, %v", b, err)
			}
		})
	}
	// The largest that is allowed is parsed again.
	d := transports.Description{Encapsulation: transports.Name(strings.Repeat("n", MaxNameLen)), Authority: strings.Repeat("a", MaxString),
		Path: strings.Repeat("p", MaxString), Proxy: strings.Repeat("x", MaxString), CertHash: hash(1)}
	for i := range many {
		many[i] = d.Encapsulation
	}
	big := &Request{Sent: d, Supported: many[1:], Received: ReceiveState{Missing: make([]byte, MaxMissing)}, Cookie: cookie, PaddedSize: MaxPaddedPacket}
	b, err := big.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := Parse(b); err != nil || !reflect.DeepEqual(m, Message(big)) {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestPacket(t *testing.T) {
	m := vectors[0].message
	for _, tt := range []struct{ from, to string }{{"10.9.0.2", "10.9.0.1"}, {"fd00::2", "fd00::1"}} {
		t.Run(tt.from, func(t *testing.T) {
			from, to := netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.to)
			p, err := AppendPacket([]byte("prefix"), from, to, m)
			if err != nil {
				t.Fatal(err)
			}
			p = p[len("prefix"):]
			// Traffic flow confidentiality padding may still hang behind.
			p = append(p, 0, 0, 0)
			if !IsRegistration(p) {
				t.Fatal("not taken for a registration")
			}
			f, d, got, err := ParsePacket(p)
			if err != nil || f != from || d != to || !reflect.DeepEqual(got, m) {
				t.Fatalf("got %v, %v, %v, %v", f, d, got, err)
			}
			p = p[:len(p)-3]
			for n := range p {
				if _, _, m, err := ParsePacket(p[:n]); err == nil {
					t.Errorf("cut to %d bytes: got %v", n, m)
				}
			}
			// Each byte counts: lengths and two checksums see to it. Traffic
			// class, flow label and hop limit of IPv6 are in no checksum.
			for i := range p {
				p[i] ^= 0x10
				_, _, _, err := ParsePacket(p)
				if free := from.Is6() && (i > 0 && i < 4 || i == 7); err == nil && !free {
					t.Errorf("byte %d changed: accepted", i)
				}
				p[i] ^= 0x10
			}
		})
	}
	if _, err := AppendPacket(nil, netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00::1"), m); err == nil {
		t.Error("mixed IP versions: accepted")
	}
}

// TestPacketBytes holds the headers against bytes reckoned by hand.
func TestPacketBytes(t *testing.T) {
	p, err := AppendPacket(nil, netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.1"), vectors[4].message)
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "4500005300004000401126860a0900020a090001 01b201b2003f"); !bytes.Equal(p[:26], want) {
		t.Errorf("got  %x\nwant %x", p[:26], want)
	}
}

func TestIsRegistration(t *testing.T) {
	p, err := AppendPacket(nil, netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.1"), vectors[0].message)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p []byte){
		"tcp":           func(p []byte) { p[9] = 6 },
		"fragment":      func(p []byte) { p[7] = 1 },
		"another port":  func(p []byte) { p[23]++ },
		"short header":  func(p []byte) { p[0] = 0x44 },
		"IP version":    func(p []byte) { p[0] = 0x55 },
		"longer than p": func(p []byte) { p[2] = 0xff },
	} {
		q := bytes.Clone(p)
		change(q)
		if IsRegistration(q) {
			t.Errorf("%s: taken for a registration", name)
		}
		if _, _, _, err := ParsePacket(q); !errors.Is(err, ErrNotRegistration) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		_ = m.String()
		c, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Parse(c)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(m, n) {
			t.Fatalf("\n got %#v\nwant %#v", n, m)
		}
	})
}

func FuzzParsePacket(f *testing.F) {
	for _, v := range vectors {
		for _, a := range []string{"10.9.0.2", "fd00::2"} {
			p, err := AppendPacket(nil, netip.MustParseAddr(a), netip.MustParseAddr(a), v.message)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(p)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		from, to, m, err := ParsePacket(b)
		if err != nil {
			return
		}
		if !IsRegistration(b) {
			t.Fatal("parsed, and yet no registration")
		}
		c, err := AppendPacket(nil, from, to, m)
		if err != nil {
			if from.Is4In6() || to.Is4In6() {
				return
			}
			t.Fatal(err)
		}
		if _, _, n, err := ParsePacket(c); err != nil || !reflect.DeepEqual(m, n) {
			t.Fatalf("got %v, %v, want %v", n, err, m)
		}
	})
}
