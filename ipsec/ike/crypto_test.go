package ike

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeyExchangeVectors(t *testing.T) {
	for _, tt := range []struct {
		name                        string
		group                       Group
		private, public, peer, want string
	}{
		{"RFC 7748, Section 6.1", X25519,
			"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
			"8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
			"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
			"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"},
		{"RFC 5903, Section 8.1", P256,
			"C88F01F5 10D9AC3F 70A292DA A2316DE5 44E9AAB8 AFE84049 C62A9C57 862D1433",
			`DAD0B653 94221CF9 B051E1FE CA5787D0 98DFE637 FC90B9EF 945D0C37 72581180
			 5271A046 1CDB8252 D61F1C45 6FA3E59A B1F45B33 ACCF5F58 389E0577 B8990BB3`,
			`D12DFB52 89C8D4F8 1208B702 70398C34 2296970A 0BCCB74C 736FC755 4494BF63
			 56FBF3CA 366CC23E 8157854C 13C58D6A AC23F046 ADA30F83 53E74F33 039872AB`,
			"D6840F6B 42F6EDAF D13116E0 E1256520 2FEF8E9E CE7DCE03 812464D0 4B9442DE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKeyExchange(tt.group, entropy{bytes.NewReader(unhex(t, tt.private))})
			if got := k.public(); !bytes.Equal(got, unhex(t, tt.public)) {
				t.Fatalf("public %x", got)
			}
			got, err := k.shared(unhex(t, tt.peer))
			if err != nil || !bytes.Equal(got, unhex(t, tt.want)) {
				t.Fatalf("shared %x, %v", got, err)
			}
		})
	}
}

func TestBadKeyExchangeData(t *testing.T) {
	offCurve := bytes.Repeat([]byte{1}, 64)
	for _, tt := range []struct {
		name  string
		group Group
		data  []byte
	}{
		{"X25519 result of zero", X25519, make([]byte, 32)},
		{"X25519 too short", X25519, make([]byte, 31)},
		{"X25519 empty", X25519, nil},
		{"P-256 off the curve", P256, offCurve},
		{"P-256 with the octet of SEC 1", P256, append([]byte{4}, offCurve...)},
		{"P-256 infinity", P256, nil},
	} {
		if s, err := newKeyExchange(tt.group, entropy{seeded(1)}).shared(tt.data); err == nil {
			t.Errorf("%s: %x", tt.name, s)
		}
	}
}

// A P-256 scalar out of range is drawn again.
func TestPrivateKeyOutOfRange(t *testing.T) {
	good := bytes.Repeat([]byte{7}, 32)
	k := newKeyExchange(P256, entropy{bytes.NewReader(append(bytes.Repeat([]byte{0xff}, 32), good...))})
	want, err := ecdh.P256().NewPrivateKey(good)
	if err != nil || !k.key.Equal(want) {
		t.Fatalf("another key, %v", err)
	}
}

// prf+ is HKDF-Expand (RFC 5869, Section 2.3) under another name.
func TestPRFPlus(t *testing.T) {
	key, a, b := []byte("key"), []byte("one"), []byte("two")
	for _, f := range []PRF{PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512} {
		for _, n := range []int{1, f.size(), f.size() + 1, 255 * f.size()} {
			want, err := hkdf.Expand(f.hash(), key, string(a)+string(b), n)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.plus(key, n, a, b); !bytes.Equal(got, want) {
				t.Errorf("PRF %d, %d bytes differ", f, n)
			}
		}
	}
	// RFC 4231, Section 4.3 (test case 2).
	if got := fmt.Sprintf("%x", PRFHMACSHA256.sum([]byte("Jefe"), []byte("what do ya want "), []byte("for nothing?"))); got !=
		"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" {
		t.Errorf("prf %s", got)
	}
}

// RFC 7634, Appendix B: a whole INFORMATIONAL message with ChaCha20-Poly1305.
func TestChaChaVector(t *testing.T) {
	var keymat []byte
	for i := range 36 {
		keymat = append(keymat, byte(0x80+i))
	}
	packet := unhex(t, `c0 c1 c2 c3 c4 c5 c6 c7 d0 d1 d2 d3 d4 d5 d6 d7
		2e 20 25 00 00 00 00 09 00 00 00 45 29 00 00 29
		10 11 12 13 14 15 16 17
		61 03 94 70 1f 8d 01 7f 7c 12 92 48 89
		6b 71 bf e2 52 36 ef d7 cd c6 70 66 90 63 15 b2`)
	a, salt := newAEAD(esp.ChaCha20Poly1305, keymat)
	m, err := message.Parse(packet)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := message.Find[*message.Encrypted](m.Payloads)
	ps, err := e.Open(packet, &opener{a, salt})
	if err != nil {
		t.Fatal(err)
	}
	// N(SET_WINDOW_SIZE) of 10.
	if n := ps[0].(*message.Notify); n.NotifyType != 16385 || !bytes.Equal(n.Data, []byte{0, 0, 0, 10}) {
		t.Fatalf("payload %v", n)
	}
	out, err := (&message.Message{Header: m.Header, Payloads: ps}).AppendSealed(nil, &sealer{a, salt, 0x1011121314151617})
	if err != nil || !bytes.Equal(out, packet) {
		t.Fatalf("got  %x, %v\nwant %x", out, err, packet)
	}
}

// Each message of a direction has another initialization vector.
func TestIVsDiffer(t *testing.T) {
	p := newPair(t)
	p.establish()
	for range 5 {
		p.i.Liveness(p.now)
		p.run()
	}
	seen := map[string]string{}
	for i, b := range p.raw[2:] {
		k := p.sends[i+2][:1] + string(b[32:40])
		if was, ok := seen[k]; ok {
			t.Fatalf("%s and %s have the same IV", was, p.sends[i+2])
		}
		seen[k] = p.sends[i+2]
	}
}

func TestEd25519Encodings(t *testing.T) {
	// RFC 8420, Appendix A.1
	if got := hex.EncodeToString(ed25519Algorithm); got != "300506032b6570" {
		t.Errorf("AlgorithmIdentifier %s", got)
	}
	// The standard library's SubjectPublicKeyInfo.
	k := public(testKey(5))
	want, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if got := append(bytes.Clone(ed25519SPKI), k...); !bytes.Equal(got, want) {
		t.Errorf("SubjectPublicKeyInfo %x, want %x", got, want)
	}
	for name, c := range map[string]*message.Cert{
		"another encoding": {Encoding: 4, Data: want},
		"a byte too many":  {Encoding: 15, Data: append(bytes.Clone(want), 0)},
		"a byte too few":   {Encoding: 15, Data: want[:43]},
		"X25519's OID":     {Encoding: 15, Data: bytes.Replace(want, []byte{0x65, 0x70}, []byte{0x65, 0x6e}, 1)},
	} {
		if rawKey([]message.Payload{c}) != nil {
			t.Errorf("%s is taken for a key", name)
		}
	}
	// Other certificates beside it do not hide it.
	if got := rawKey([]message.Payload{&message.Cert{Encoding: 4}, &message.Cert{Encoding: 15, Data: want}}); !got.Equal(k) {
		t.Errorf("key %x", got)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c := Child{InboundKey: Secret("sesame"), OutboundKey: Secret("sesame")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, c); strings.Contains(s, "sesame") || strings.Contains(s, hex.EncodeToString([]byte("sesame"))) {
			t.Errorf("%s: %s", verb, s)
		}
	}
}
