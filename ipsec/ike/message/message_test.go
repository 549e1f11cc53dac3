package message

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var header = Header{
	InitiatorSPI: 0x0102030405060708, ResponderSPI: 0x1112131415161718,
	Version: Version2, Exchange: IKEAuth, Flags: FlagInitiator, ID: 1,
}

// payloads has one row for each payload type: what it is, and its bytes with
// the generic header, counted by hand from the diagrams of RFC 7296.
var payloads = []struct {
	name string
	p    Payload
	hex  string
}{
	{"SA of two proposals", &SA{Proposals: []Proposal{
		{Number: 1, Protocol: ProtocolESP, SPI: []byte{0xc0, 1, 2, 3}, Transforms: []Transform{
			NewTransform(TransformEncryption, EncrAESGCM16, 128),
			NewTransform(TransformESN, ESNYes, 0),
		}},
		{Number: 2, Protocol: ProtocolESP, SPI: []byte{0xc0, 1, 2, 3}, Transforms: []Transform{
			NewTransform(TransformEncryption, EncrChaCha20Poly1305, 0),
		}},
	}}, `0000 0038
		0200 0020  0103 0402  c0010203
		  0300 000c  0100 0014  800e 0080
		  0000 0008  0500 0001
		0000 0014  0203 0401  c0010203
		  0000 0008  0100 001c`},
	{"transform with a long attribute", &SA{Proposals: []Proposal{
		{Number: 1, Protocol: ProtocolIKE, Transforms: []Transform{
			{Type: TransformPRF, ID: 5, Attributes: []TransformAttribute{{Type: 77, Value: []byte{1, 2, 3}}}},
		}},
	}}, `0000 001b 0000 0017 0101 0001 0000 000f 0200 0005 004d 0003 010203`},
	{"KE", &KE{Group: 31, Data: []byte{1, 2, 3}}, "0000 000b 001f 0000 010203"},
	{"IDi", &ID{IDType: 2, Data: []byte("ab")}, "0000 000a 02 000000 6162"},
	{"IDr", &ID{Responder: true, IDType: 11, Data: []byte{9}}, "0000 0009 0b 000000 09"},
	{"CERT", &Cert{Encoding: CertRawPublicKey, Data: []byte{0x30}}, "0000 0006 0f 30"},
	{"CERTREQ without authority", &CertRequest{Encoding: CertRawPublicKey, Data: []byte{}}, "0000 0005 0f"},
	{"AUTH", &Auth{Method: AuthDigitalSignature, Data: []byte{7, 0x30}}, "0000 000a 0e 000000 0730"},
	{"Nonce", &Nonce{Data: bytes.Repeat([]byte{5}, 16)}, "0000 0014 " + strings.Repeat("05", 16)},
	{"N without SPI", &Notify{NotifyType: Cookie, SPI: []byte{}, Data: []byte{1}}, "0000 0009 00 00 4006 01"},
	{"N(REKEY_SA)", &Notify{Protocol: ProtocolESP, NotifyType: RekeySA, SPI: []byte{1, 2, 3, 4}, Data: []byte{}}, "0000 000c 03 04 4009 01020304"},
	{"D of an IKE SA", &Delete{Protocol: ProtocolIKE}, "0000 0008 01 00 0000"},
	{"D of two Child SAs", &Delete{Protocol: ProtocolESP, SPIs: []uint32{1, 0xfffffffe}}, "0000 0010 03 04 0002 00000001 fffffffe"},
	{"V", &VendorID{Data: []byte("v")}, "0000 0005 76"},
	{"TSi", &TS{Selectors: []TrafficSelector{
		{EndPort: 0xffff, Start: netip.MustParseAddr("10.0.0.0"), End: netip.MustParseAddr("10.255.255.255")},
		{Protocol: 6, StartPort: 80, EndPort: 81, Start: netip.MustParseAddr("::"), End: netip.MustParseAddr("::1")},
	}}, `0000 0040 02 000000
		07 00 0010 0000 ffff 0a000000 0affffff
		08 06 0028 0050 0051 00000000000000000000000000000000 00000000000000000000000000000001`},
	{"TSr", &TS{Responder: true}, "0000 0008 00 000000"},
	{"CP", &Config{ConfigType: ConfigReply, Attributes: []ConfigAttribute{{Type: 1, Value: []byte{10, 0, 0, 1}}, {Type: 3, Value: []byte{}}}},
		"0000 0014 02 000000 0001 0004 0a000001 0003 0000"},
	{"EAP request", &EAP{Message: []byte{1, 7, 0, 6, 1, 0x61}}, "0000 000a 01 07 0006 01 61"},
	{"EAP success", &EAP{Message: []byte{3, 7, 0, 4}}, "0000 0008 03 07 0004"},
}

func TestPayloads(t *testing.T) {
	for _, tt := range payloads {
		t.Run(tt.name, func(t *testing.T) {
			want := unhex(t, tt.hex)
			first, b, err := AppendPayloads([]byte("prefix"), []Payload{tt.p})
			if err != nil || first != tt.p.Type() {
				t.Fatalf("type %d, %v", first, err)
			}
			if got := b[len("prefix"):]; !bytes.Equal(got, want) {
				t.Fatalf("got  %x\nwant %x", got, want)
			}
			ps, err := ParsePayloads(first, want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(ps, []Payload{tt.p}) {
				t.Fatalf("got  %#v\nwant %#v", ps[0], tt.p)
			}
			// A payload cut off is refused wherever the cut is.
			for n := range want {
				if _, err := ParsePayloads(first, want[:n]); !errors.Is(err, ErrSyntax) {
					t.Fatalf("cut at %d: %v", n, err)
				}
			}
		})
	}
}

// What a payload counts inside itself must agree with its length.
func TestInnerLengths(t *testing.T) {
	for _, tt := range []struct {
		name string
		typ  PayloadType
		hex  string
	}{
		{"SA without proposals", TypeSA, "0000 0004"},
		{"proposal longer than the payload", TypeSA, "0000 000c 0000 0009 0101 0000"},
		{"proposal says that another follows", TypeSA, "0000 000c 0200 0008 0101 0000"},
		{"proposal followed by an odd number", TypeSA, "0000 000c 0100 0008 0101 0000"},
		{"SPI longer than the proposal", TypeSA, "0000 000c 0000 0008 0103 0400"},
		{"transform missing", TypeSA, "0000 000c 0000 0008 0101 0001"},
		{"transform of length 7", TypeSA, "0000 0014 0000 0010 0101 0001 0000 0007 0100 0014"},
		{"last transform says that another follows", TypeSA, "0000 0014 0000 0010 0101 0001 0300 0008 0100 0014"},
		{"bytes after the last transform", TypeSA, "0000 0015 0000 0011 0101 0001 0000 0008 0100 0014 00"},
		{"attribute cut off", TypeSA, "0000 0018 0000 0014 0101 0001 0000 000c 0100 0014 000e 0001"},
		{"bytes after the last proposal", TypeSA, "0000 000d 0000 0008 0101 0000 00"},
		{"nonce of 15 bytes", TypeNonce, "0000 0013 " + strings.Repeat("00", 15)},
		{"nonce of 257 bytes", TypeNonce, "0000 0105 " + strings.Repeat("00", 257)},
		{"SPI longer than the notification", TypeNotify, "0000 000a 03 04 4009 0102"},
		{"deletion of SPIs of 8 bytes", TypeDelete, "0000 0010 01 08 0001 0000000000000001"},
		{"deletion of more SPIs than there are", TypeDelete, "0000 000c 03 04 0002 00000001"},
		{"more selectors than there are", TypeTSi, "0000 0018 02 000000 07 00 0010 0000 ffff 00000000 ffffffff"},
		{"selector of length 0", TypeTSi, "0000 0018 01 000000 07 00 0000 0000 ffff 00000000 ffffffff"},
		{"configuration attribute cut off", TypeConfig, "0000 000e 02 000000 0001 0004 0a00"},
		{"EAP of nothing", TypeEAP, "0000 0004"},
		{"EAP longer than its payload", TypeEAP, "0000 0009 01 07 0006 01"},
		{"EAP shorter than its payload", TypeEAP, "0000 0009 03 07 0004 00"},
	} {
		if _, err := ParsePayloads(tt.typ, unhex(t, tt.hex)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestSelectorsThatSelectNothing(t *testing.T) {
	for name, s := range map[string]string{
		"unknown type":        "09 00 0010 0000 ffff 00000000 ffffffff",
		"IPv4 with 16 bytes":  "07 00 0028 0000 ffff 00000000000000000000000000000000 00000000000000000000000000000001",
		"start above the end": "07 00 0010 0000 ffff 0a000001 0a000000",
		"OPAQUE ports":        "07 00 0010 ffff 0000 00000000 ffffffff",
	} {
		b := unhex(t, "00000000 01000000"+s)
		b[3] = byte(len(b))
		ps, err := ParsePayloads(TypeTSi, b)
		if err != nil || len(ps[0].(*TS).Selectors) != 0 {
			t.Errorf("%s: %v, %v", name, ps, err)
		}
	}
}

func TestChain(t *testing.T) {
	// "MUST reject" an unknown payload that is critical, skip others; the bit
	// means nothing on known ones. RFC 7296, Section 2.5
	for _, tt := range []struct {
		name     string
		first    PayloadType
		hex      string
		critical PayloadType
		n        int
	}{
		{"unknown, not critical", 200, "2b00 0004 0000 0005 01", 0, 2},
		{"unknown and critical", 200, "2b80 0004 0000 0005 01", 200, 0},
		{"known and critical", TypeVendorID, "2b80 0005 01 0080 0005 01", 0, 2},
		{"EAP and critical", TypeEAP, "0080 0008 03 07 0004", 0, 1},
	} {
		ps, err := ParsePayloads(tt.first, unhex(t, tt.hex))
		var c *CriticalError
		if errors.As(err, &c) != (tt.critical != 0) || c != nil && c.Type != tt.critical || len(ps) != tt.n {
			t.Errorf("%s: %v, %v", tt.name, ps, err)
		}
	}
	if _, err := ParsePayloads(TypeVendorID, bytes.Repeat([]byte{byte(TypeVendorID), 0, 0, 4}, MaxPayloads+1)); !errors.Is(err, ErrSyntax) {
		t.Errorf("too many payloads: %v", err)
	}
	if _, err := ParsePayloads(TypeNone, []byte{0}); !errors.Is(err, ErrSyntax) {
		t.Errorf("bytes without a payload: %v", err)
	}
	if _, err := ParsePayloads(TypeEncrypted, unhex(t, "2100 0005 00 0000 0004")); !errors.Is(err, ErrSyntax) {
		t.Errorf("payload after the encrypted one: %v", err)
	}
}

func TestHeader(t *testing.T) {
	m := Message{Header: header, Payloads: []Payload{&VendorID{Data: []byte("v")}}}
	b, err := m.AppendBinary([]byte("prefix"))
	if err != nil {
		t.Fatal(err)
	}
	b = b[len("prefix"):]
	want := unhex(t, `0102030405060708 1112131415161718 2b 20 23 08 00000001 00000021  0000 0005 76`)
	if !bytes.Equal(b, want) {
		t.Fatalf("got  %x\nwant %x", b, want)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Response() || !got.FromInitiator() || got.Length != 33 {
		t.Fatalf("header %+v", got.Header)
	}
	for name, change := range map[string]func([]byte) []byte{
		"shorter than a header":   func(b []byte) []byte { return b[:27] },
		"length too small":        func(b []byte) []byte { b[27]--; return b },
		"length too big":          func(b []byte) []byte { b[27]++; return b },
		"initiator's SPI of zero": func(b []byte) []byte { clear(b[:8]); return b },
	} {
		if _, err := Parse(change(bytes.Clone(want))); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want[17] = 0x30
	var v *VersionError
	if _, err := Parse(want); !errors.As(err, &v) || v.Major != 3 {
		t.Errorf("version 3: %v", err)
	}
}

// plainCipher "encrypts" by copying, so that the layout shows.
type plainCipher struct{ ad []byte }

func (c *plainCipher) Seal(dst, plain, ad []byte) []byte {
	c.ad = bytes.Clone(ad)
	dst = append(dst, "ivivivIV"...)
	dst = append(dst, plain...)
	return append(dst, "sixteen byte ICV"...)
}

func (c *plainCipher) Open(body, ad []byte) ([]byte, error) {
	if !bytes.Equal(ad, c.ad) {
		return nil, errors.New("another message")
	}
	return body[ivLen : len(body)-icvLen], nil
}

func TestEncrypted(t *testing.T) {
	m := Message{Header: header, Payloads: []Payload{&Delete{Protocol: ProtocolIKE}, &VendorID{Data: []byte("v")}}}
	var c plainCipher
	b, err := m.AppendSealed([]byte("prefix"), &c)
	if err != nil {
		t.Fatal(err)
	}
	b = b[len("prefix"):]
	want := unhex(t, `0102030405060708 1112131415161718 2e 20 23 08 00000001 00000046
		2a00 002a 6976697669764956  2b00 0008 01 00 0000  0000 0005 76  00
		7369787465656e2062797465204943 56`)
	if !bytes.Equal(b, want) {
		t.Fatalf("got  %x\nwant %x", b, want)
	}
	// "the associated data [...] starting from the first octet of the Fixed IKE
	// Header through the last octet of the Payload Header of the Encrypted
	// Payload". RFC 5282, Section 5.1
	if !bytes.Equal(c.ad, want[:32]) {
		t.Fatalf("additional data %x", c.ad)
	}
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	e, ok := Find[*Encrypted](got.Payloads)
	if !ok {
		t.Fatal("no encrypted payload")
	}
	ps, err := e.Open(b, &c)
	if err != nil || !reflect.DeepEqual(ps, m.Payloads) {
		t.Fatalf("%v, %v", ps, err)
	}
	// Padding: 255 bytes claimed where there are fewer.
	b[len(b)-icvLen-1] = 255
	if _, err := e.Open(b, &c); !errors.Is(err, ErrSyntax) {
		t.Fatalf("padding: %v", err)
	}
}

func TestIntersect(t *testing.T) {
	ts := func(proto uint8, p1, p2 uint16, a, b string) TrafficSelector {
		return TrafficSelector{proto, p1, p2, netip.MustParseAddr(a), netip.MustParseAddr(b)}
	}
	all4 := ts(0, 0, 0xffff, "0.0.0.0", "255.255.255.255")
	for _, tt := range []struct {
		name       string
		a, b, want TrafficSelector
		ok         bool
	}{
		{"all and one", all4, ts(6, 80, 80, "10.0.0.1", "10.0.0.1"), ts(6, 80, 80, "10.0.0.1", "10.0.0.1"), true},
		{"overlap", ts(0, 0, 100, "10.0.0.0", "10.0.0.9"), ts(0, 50, 200, "10.0.0.5", "10.0.0.20"), ts(0, 50, 100, "10.0.0.5", "10.0.0.9"), true},
		{"other protocols", ts(6, 0, 0xffff, "10.0.0.1", "10.0.0.1"), ts(17, 0, 0xffff, "10.0.0.1", "10.0.0.1"), TrafficSelector{}, false},
		{"other ports", ts(6, 1, 2, "10.0.0.1", "10.0.0.1"), ts(6, 3, 4, "10.0.0.1", "10.0.0.1"), TrafficSelector{}, false},
		{"other addresses", ts(0, 0, 0xffff, "10.0.0.1", "10.0.0.1"), ts(0, 0, 0xffff, "10.0.0.2", "10.0.0.3"), TrafficSelector{}, false},
		{"other families", all4, ts(0, 0, 0xffff, "::", "::1"), TrafficSelector{}, false},
	} {
		for range 2 {
			got, ok := tt.a.Intersect(tt.b)
			if ok != tt.ok || ok && got != tt.want {
				t.Errorf("%s: %v, %v", tt.name, got, ok)
			}
			tt.a, tt.b = tt.b, tt.a
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range payloads {
		m := Message{Header: header, Payloads: []Payload{tt.p}}
		b, err := m.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	m := Message{Header: header}
	for _, tt := range payloads {
		m.Payloads = append(m.Payloads, tt.p)
	}
	b, _ := m.AppendBinary(nil)
	f.Add(b)
	b, _ = m.AppendSealed(nil, &plainCipher{})
	f.Add(b)
	all, _ := m.AppendFragments(&plainCipher{}, 101)
	f.Add(all[0])
	f.Add(all[1])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		out, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatalf("parsed but not written: %v", err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("written but not parsed: %v", err)
		}
		again.Length, again.NextPayload = m.Length, m.NextPayload
		for _, m := range []*Message{m, again} {
			if e, ok := Find[*Encrypted](m.Payloads); ok {
				e.Offset, e.Flags = 0, 0 // of what was parsed; zero is written
			}
			if e, ok := Find[*Fragment](m.Payloads); ok {
				e.Offset, e.Flags = 0, 0
			}
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("first  %#v\nsecond %#v", m, again)
		}
		// What was encrypted is a chain of payloads as well.
		if e, ok := Find[*Encrypted](m.Payloads); ok {
			ParsePayloads(e.First, e.Body)
		}
	})
}
