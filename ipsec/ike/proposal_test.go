package ike

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

const (
	encr  = message.TransformEncryption
	prf   = message.TransformPRF
	integ = message.TransformIntegrity
	keTyp = message.TransformKE
	esn   = message.TransformESN
)

func prop(n uint8, proto message.ProtocolID, ts ...message.Transform) message.Proposal {
	return message.Proposal{Number: n, Protocol: proto, Transforms: ts}
}

func tr(t message.TransformType, id uint16, bits ...int) message.Transform {
	return message.NewTransform(t, id, append(bits, 0)[0])
}

func TestChooseIKE(t *testing.T) {
	aes128 := []message.Transform{tr(encr, 20, 128), tr(prf, 5), tr(keTyp, 31)}
	for _, tt := range []struct {
		name    string
		offered []message.Proposal
		prefer  Group
		want    choice
		number  uint8 // 0: none fits
	}{
		{"all in one, our order decides", []message.Proposal{prop(1, message.ProtocolIKE,
			tr(encr, 28), tr(encr, 20, 256), tr(encr, 20, 128), tr(prf, 7), tr(prf, 5), tr(keTyp, 19), tr(keTyp, 31))},
			0, choice{cipher: esp.AES128GCM, prf: PRFHMACSHA256, group: X25519}, 1},
		{"the group that a key came for saves a round trip", []message.Proposal{prop(1, message.ProtocolIKE,
			tr(encr, 20, 128), tr(prf, 5), tr(keTyp, 31), tr(keTyp, 19))},
			P256, choice{cipher: esp.AES128GCM, prf: PRFHMACSHA256, group: P256}, 1},
		{"a phone's: AES-CBC with integrity first, AEAD second", []message.Proposal{
			prop(1, message.ProtocolIKE, tr(encr, 12, 256), tr(integ, 12), tr(prf, 5), tr(keTyp, 14)),
			prop(2, message.ProtocolIKE, tr(encr, 20, 256), tr(prf, 6), tr(keTyp, 20), tr(keTyp, 19))},
			0, choice{cipher: esp.AES256GCM, prf: PRFHMACSHA384, group: P256}, 2},
		{"iOS 17 and macOS 14", []message.Proposal{
			prop(1, message.ProtocolIKE, tr(encr, 20, 256), tr(prf, 5), tr(keTyp, 19)),
			prop(2, message.ProtocolIKE, tr(encr, 20, 256), tr(prf, 5), tr(keTyp, 14)),
			prop(3, message.ProtocolIKE, tr(encr, 12, 256), tr(integ, 12), tr(prf, 5), tr(keTyp, 19)),
			prop(4, message.ProtocolIKE, tr(encr, 12, 256), tr(integ, 12), tr(prf, 5), tr(keTyp, 14))},
			P256, choice{cipher: esp.AES256GCM, prf: PRFHMACSHA256, group: P256}, 1},
		{"Android 12, which sends a key for MODP 4096", []message.Proposal{
			prop(1, message.ProtocolIKE, tr(encr, 13, 256), tr(encr, 12, 256), tr(integ, 14), tr(integ, 12), tr(prf, 7), tr(prf, 5), tr(prf, 8),
				tr(keTyp, 16), tr(keTyp, 31), tr(keTyp, 15), tr(keTyp, 14)),
			prop(2, message.ProtocolIKE, tr(encr, 28), tr(encr, 20, 256), tr(encr, 20, 192), tr(encr, 20, 128), tr(encr, 19, 256), tr(encr, 18, 256),
				tr(prf, 7), tr(prf, 6), tr(prf, 5), tr(prf, 4), tr(prf, 8), tr(keTyp, 16), tr(keTyp, 31), tr(keTyp, 15), tr(keTyp, 14))},
			16, choice{cipher: esp.AES128GCM, prf: PRFHMACSHA256, group: X25519}, 2},
		{"Windows with GCMAES256, SHA256 and ECP256", []message.Proposal{prop(1, message.ProtocolIKE, tr(encr, 20, 256), tr(prf, 5), tr(keTyp, 19))},
			P256, choice{cipher: esp.AES256GCM, prf: PRFHMACSHA256, group: P256}, 1},
		{"Windows as it comes", []message.Proposal{
			prop(1, message.ProtocolIKE, tr(encr, 3), tr(integ, 2), tr(prf, 2), tr(keTyp, 2)),
			prop(2, message.ProtocolIKE, tr(encr, 12, 256), tr(integ, 12), tr(prf, 5), tr(keTyp, 2))}, 2, choice{}, 0},
		{"integrity of NONE", []message.Proposal{prop(1, message.ProtocolIKE, append(slices.Clone(aes128), tr(integ, 0))...)},
			0, choice{cipher: esp.AES128GCM, prf: PRFHMACSHA256, group: X25519}, 1},
		{"integrity with an AEAD", []message.Proposal{prop(1, message.ProtocolIKE, append(slices.Clone(aes128), tr(integ, 12))...)}, 0, choice{}, 0},
		{"unknown transform type", []message.Proposal{prop(1, message.ProtocolIKE, append(slices.Clone(aes128), tr(13, 36))...)}, 0, choice{}, 0},
		{"an additional key exchange", []message.Proposal{prop(1, message.ProtocolIKE, append(slices.Clone(aes128), tr(6, 36))...)}, 0, choice{}, 0},
		{"an additional key exchange or none", []message.Proposal{prop(1, message.ProtocolIKE, append(slices.Clone(aes128), tr(7, 36), tr(7, 0))...)},
			0, choice{cipher: esp.AES128GCM, prf: PRFHMACSHA256, group: X25519}, 1},
		{"key length of 192", []message.Proposal{prop(1, message.ProtocolIKE, tr(encr, 20, 192), tr(prf, 5), tr(keTyp, 31))}, 0, choice{}, 0},
		{"no key length", []message.Proposal{prop(1, message.ProtocolIKE, tr(encr, 20), tr(prf, 5), tr(keTyp, 31))}, 0, choice{}, 0},
		{"no PRF", []message.Proposal{prop(1, message.ProtocolIKE, tr(encr, 20, 128), tr(keTyp, 31))}, 0, choice{}, 0},
		{"no group of ours", []message.Proposal{prop(1, message.ProtocolIKE, tr(encr, 20, 128), tr(prf, 5), tr(keTyp, 14))}, 0, choice{}, 0},
		{"for ESP", []message.Proposal{prop(1, message.ProtocolESP, aes128...)}, 0, choice{}, 0},
		{"an attribute that nobody knows", []message.Proposal{prop(1, message.ProtocolIKE,
			message.Transform{Type: encr, ID: 20, Attributes: []message.TransformAttribute{
				{Type: message.AttributeKeyLength, Short: true, Value: []byte{0, 128}}, {Type: 99, Short: true, Value: []byte{0, 1}}}},
			tr(prf, 5), tr(keTyp, 31))}, 0, choice{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, ok := choose(NeverPostQuantum.ikeProposals(), &message.SA{Proposals: tt.offered}, message.ProtocolIKE, true, tt.prefer)
			if ok != (tt.number != 0) || ok && (!reflect.DeepEqual(c, tt.want) || p.Number != tt.number) {
				t.Fatalf("%v of %d, %v", c, p.Number, ok)
			}
			if !ok {
				return
			}
			// "one transform of each type included in the offer", and the
			// initiator must agree.
			if got, _, err := chosen(&message.SA{Proposals: tt.offered}, &message.SA{Proposals: []message.Proposal{p}}); err != nil || !reflect.DeepEqual(got, c) {
				t.Fatalf("read back: %v, %v", got, err)
			}
		})
	}
}

func TestChooseESP(t *testing.T) {
	gcm := tr(encr, 20, 128)
	for _, tt := range []struct {
		name    string
		own     []Proposal
		groups  bool
		offered []message.Proposal
		want    choice
		number  uint8
	}{
		{"ESN preferred", nil, false, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(esn, 0), tr(esn, 1))}, choice{cipher: esp.AES128GCM, esn: true}, 1},
		{"no ESN", nil, false, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(esn, 0))}, choice{cipher: esp.AES128GCM}, 1},
		{"ESN not spoken of", nil, false, []message.Proposal{prop(1, message.ProtocolESP, gcm)}, choice{cipher: esp.AES128GCM}, 1},
		{"ESN insisted on", []Proposal{{Ciphers: allCiphers, ESN: []bool{true}}}, false, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(esn, 0))}, choice{}, 0},
		{"key exchange of NONE", nil, false, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(keTyp, 0), tr(esn, 0))}, choice{cipher: esp.AES128GCM}, 1},
		{"groups in IKE_AUTH mean nothing", nil, false, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(keTyp, 31), tr(esn, 0))}, choice{cipher: esp.AES128GCM}, 1},
		{"key exchange at rekeying", nil, true, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(esn, 0)), prop(2, message.ProtocolESP, gcm, tr(keTyp, 19), tr(esn, 0))},
			choice{cipher: esp.AES128GCM, group: P256}, 2},
		{"key exchange in a group that we lack", nil, true, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(keTyp, 14), tr(esn, 0))}, choice{}, 0},
		{"key exchange or none", NeverPostQuantum.espProposals()[1:], true, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(keTyp, 31), tr(keTyp, 0), tr(esn, 0))}, choice{cipher: esp.AES128GCM}, 1},
		{"AH", nil, false, []message.Proposal{prop(1, message.ProtocolAH, gcm, tr(esn, 0))}, choice{}, 0},
		{"a PRF, which ESP has not", nil, false, []message.Proposal{prop(1, message.ProtocolESP, gcm, tr(prf, 5), tr(esn, 0))}, choice{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own := tt.own
			if own == nil {
				own = NeverPostQuantum.espProposals()
			}
			c, p, ok := choose(own, &message.SA{Proposals: tt.offered}, message.ProtocolESP, tt.groups, 0)
			if ok != (tt.number != 0) || ok && (!reflect.DeepEqual(c, tt.want) || p.Number != tt.number) {
				t.Fatalf("%v of %d, %v", c, p.Number, ok)
			}
		})
	}
}

// An answer must be one of what was offered, whole.
func TestChosen(t *testing.T) {
	offered := &message.SA{Proposals: []message.Proposal{
		prop(1, message.ProtocolESP, tr(encr, 20, 128), tr(encr, 20, 256), tr(keTyp, 31), tr(esn, 1), tr(esn, 0)),
		prop(2, message.ProtocolESP, tr(encr, 28), tr(esn, 1)),
	}}
	for _, tt := range []struct {
		name   string
		answer []message.Proposal
		ok     bool
	}{
		{"one of each", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(keTyp, 31), tr(esn, 0))}, true},
		{"integrity of NONE added", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(integ, 0), tr(keTyp, 31), tr(esn, 0))}, true},
		{"ESN left out where there may be none", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(keTyp, 31))}, true},
		{"ESN left out where there must be", []message.Proposal{prop(2, message.ProtocolESP, tr(encr, 28))}, false},
		{"two proposals", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(keTyp, 31), tr(esn, 0)), prop(2, message.ProtocolESP, tr(encr, 28), tr(esn, 1))}, false},
		{"another proposal's cipher", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 28), tr(keTyp, 31), tr(esn, 0))}, false},
		{"no proposal of that number", []message.Proposal{prop(3, message.ProtocolESP, tr(encr, 28), tr(esn, 1))}, false},
		{"two ciphers", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(encr, 20, 128), tr(keTyp, 31), tr(esn, 0))}, false},
		{"no cipher", []message.Proposal{prop(1, message.ProtocolESP, tr(keTyp, 31), tr(esn, 0))}, false},
		{"the key exchange left out", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(esn, 0))}, false},
		{"the key exchange turned to NONE", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(keTyp, 0), tr(esn, 0))}, false},
		{"another key length", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 192), tr(keTyp, 31), tr(esn, 0))}, false},
		{"another protocol", []message.Proposal{prop(1, message.ProtocolIKE, tr(encr, 20, 256), tr(keTyp, 31), tr(esn, 0))}, false},
		{"a type from nowhere", []message.Proposal{prop(1, message.ProtocolESP, tr(encr, 20, 256), tr(keTyp, 31), tr(esn, 0), tr(200, 1))}, false},
	} {
		if c, _, err := chosen(offered, &message.SA{Proposals: tt.answer}); (err == nil) != tt.ok {
			t.Errorf("%s: %v, %v", tt.name, c, err)
		}
	}
}

func TestOffer(t *testing.T) {
	if n := len(offer(NeverPostQuantum.espProposals(), message.ProtocolESP, nil, false).Proposals); n != 1 {
		t.Errorf("%d proposals in IKE_AUTH", n)
	}
	if n := len(offer(NeverPostQuantum.espProposals(), message.ProtocolESP, nil, true).Proposals); n != 2 {
		t.Errorf("%d proposals at rekeying", n)
	}
}

func TestNarrow(t *testing.T) {
	ps := func(cidr ...string) (ts []TrafficSelector) {
		for _, c := range cidr {
			ts = append(ts, PrefixSelector(netip.MustParsePrefix(c)))
		}
		return ts
	}
	packet := TrafficSelector{Protocol: 6, StartPort: 80, EndPort: 80, Start: netip.MustParseAddr("10.0.0.1"), End: netip.MustParseAddr("10.0.0.1")}
	for _, tt := range []struct {
		name                    string
		proposed, allowed, want []TrafficSelector
	}{
		{"everything", ps("0.0.0.0/0", "::/0"), allSelectors(), allSelectors()},
		{"one family", ps("0.0.0.0/0", "::/0"), ps("10.7.0.2/32"), ps("10.7.0.2/32")},
		{"nothing", ps("10.0.0.0/8"), ps("192.168.0.0/16"), nil},
		{"the packet that started it is inside the rest", append([]TrafficSelector{packet}, ps("10.0.0.0/8")...), allSelectors(), ps("10.0.0.0/8")},
		{"the rest first", append(ps("10.0.0.0/8"), packet), allSelectors(), ps("10.0.0.0/8")},
		{"two parts", ps("10.0.0.0/8"), ps("10.1.0.0/16", "10.2.0.0/16"), ps("10.1.0.0/16", "10.2.0.0/16")},
	} {
		if got := narrow(tt.proposed, tt.allowed); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
