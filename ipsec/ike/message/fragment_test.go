package message

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

func TestFragments(t *testing.T) {
	m := Message{Header: header, Payloads: []Payload{
		&Delete{Protocol: ProtocolIKE}, &VendorID{Data: bytes.Repeat([]byte{'v'}, 100)},
	}}
	var c plainCipher
	all, err := m.AppendFragments(&c, 161)
	if err != nil || len(all) != 2 {
		t.Fatalf("%d fragments, %v", len(all), err)
	}
	// 112 bytes of payloads: 100 in the first message, 12 in the second, each
	// with a pad length of its own. Next Payload is 42 (Delete), then 0.
	want := unhex(t, `0102030405060708 1112131415161718 35 20 23 08 00000001 000000a1
		2a00 0085 0001 0002 6976697669764956  2b00 0008 01 00 0000  0000 0068`+
		string(bytes.Repeat([]byte("76"), 88))+`00 7369787465656e2062797465204943 56`)
	if !bytes.Equal(all[0], want) {
		t.Fatalf("got  %x\nwant %x", all[0], want)
	}
	if len(all[1]) != 161-88 || !bytes.Equal(all[1][28:36], unhex(t, `0000 002d 0002 0002`)) {
		t.Fatalf("second fragment %x", all[1])
	}
	if !bytes.Equal(c.ad, all[1][:36]) {
		t.Fatalf("additional data %x", c.ad)
	}
	var plain []byte
	var first PayloadType
	for i, b := range all {
		got, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		f, ok := Find[*Fragment](got.Payloads)
		if !ok || int(f.Number) != i+1 || f.Total != 2 {
			t.Fatalf("fragment %d: %v", i, got.Payloads)
		}
		// "the last octet of [...] Total Fragments" ends what is authenticated.
		// RFC 7383, Section 2.5
		c.ad = b[:36]
		part, err := f.Open(b, &c)
		if err != nil {
			t.Fatal(err)
		}
		plain = append(plain, part...)
		first |= f.First
	}
	ps, err := ParseInner(first, plain)
	if err != nil || !reflect.DeepEqual(ps, m.Payloads) {
		t.Fatalf("%v, %v", ps, err)
	}
	// What fits goes whole.
	if all, err := m.AppendFragments(&c, 173); err != nil || len(all) != 1 || all[0][16] != byte(TypeEncrypted) {
		t.Fatalf("%x, %v", all, err)
	}
	if _, err := m.AppendFragments(&c, 62); !errors.Is(err, ErrTooBig) {
		t.Fatalf("a fragment for each byte: %v", err)
	}
}

func TestFragmentFields(t *testing.T) {
	for name, s := range map[string]string{
		"cut off":                    "0000 0007 000100",
		"number 0":                   "0000 0008 0000 0002",
		"number above the total":     "0000 0008 0003 0002",
		"more than there may be":     "0000 0008 0001 0041",
		"next payload in the second": "2100 0008 0002 0002",
		"a payload behind it":        "2100 0008 0001 0002 0000 0004",
	} {
		if _, err := ParsePayloads(TypeFragment, unhex(t, s)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseInner(TypeFragment, unhex(t, "2100 0008 0001 0002")); !errors.Is(err, ErrSyntax) {
		t.Errorf("a fragment inside others: %v", err)
	}
}
