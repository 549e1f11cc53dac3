package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The ESP example of RFC 7634, Appendix A. Its IV is not its sequence number,
// so sealing goes through the function below Seal.
const (
	rfc7634Key = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f" + // key
		"a0a1a2a3" // salt
	rfc7634Inner = "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10" +
		"0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223" +
		"2425262728292a2b2c2d2e2f3031323334353637"
	rfc7634Packet = "01020304" + "00000005" + "1011121314151617" + // SPI, sequence number, IV
		"24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6" +
		"14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3" +
		"cbec163fac469b502773f6fb94e664da9165b82829f641e0" +
		"76aaa8266b7fb0f7b11b369907e1ad43" // ICV
)

func TestRFC7634AppendixA(t *testing.T) {
	key, inner, want := unhex(t, rfc7634Key), unhex(t, rfc7634Inner), unhex(t, rfc7634Packet)

	out, err := NewOutbound(0x01020304, ChaCha20Poly1305, key, false)
	if err != nil {
		t.Fatal(err)
	}
	proto, size, err := plan(inner, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := out.seal(make([]byte, 0, size), inner, proto, size, 5, 0x1011121314151617, new(scratch))
	if !bytes.Equal(got, want) {
		t.Errorf("seal gives\n%x, want\n%x", got, want)
	}

	in, err := NewInbound(0x01020304, ChaCha20Poly1305, key, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := in.Open(want)
	if err != nil || !bytes.Equal(opened, inner) {
		t.Errorf("Open gives %x, %v; want %x", opened, err, inner)
	}
}

// RFC 4106 has no vectors: here the packet is put together by hand from its
// Sections 3 to 5 and RFC 4303, with crypto/cipher for GCM itself.
func TestGCMAgainstRFC4106ByHand(t *testing.T) {
	for _, tt := range []struct {
		name string
		alg  Algorithm
		key  string
		esn  bool
		seq  uint64
		aad  string
		iv   string
	}{
		{"AES-128, 32-bit numbers", AES128GCM, "feffe9928665731c6d6a8f9467308308", false, 7,
			"0000a5f8" + "00000007", "0000000000000007"},
		{"AES-256, extended numbers", AES256GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", true, 0x1_0000_0002,
			"0000a5f8" + "00000001" + "00000002", "0000000100000002"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inner := unhex(t, "450000150000000040110000c0000201c633640141") // 21 bytes
			block, err := aes.NewCipher(unhex(t, tt.key))
			if err != nil {
				t.Fatal(err)
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				t.Fatal(err)
			}
			want := unhex(t, "0000a5f8"+tt.aad[len(tt.aad)-8:]+tt.iv)
			plain := append(bytes.Clone(inner), 1, 1, 4) // Padding, Pad Length, Next Header: 24 bytes
			want = gcm.Seal(want, unhex(t, "2e443b68"+tt.iv), plain, unhex(t, tt.aad))

			out, err := NewOutbound(0xa5f8, tt.alg, unhex(t, tt.key+"2e443b68"), tt.esn)
			if err != nil {
				t.Fatal(err)
			}
			out.last.Store(tt.seq - 1)
			got, err := out.Seal(nil, inner, 0)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("Seal gives\n%x, %v; want\n%x", got, err, want)
			}
		})
	}
}
