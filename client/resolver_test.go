package client

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/godwit-net/godwit/client/front"
)

var question = dnsmessage.Question{Name: dnsmessage.MustNewName("www.example.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}

// answer makes the answer to question, changed by edit.
func answer(t testing.TB, edit func(*dnsmessage.Message)) []byte {
	t.Helper()
	h := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60}
	alias := dnsmessage.MustNewName("host.example.org.")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
		Answers: []dnsmessage.Resource{
			{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: alias}},
			{Header: dnsmessage.ResourceHeader{Name: alias, Class: h.Class}, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 10}}},
			{Header: dnsmessage.ResourceHeader{Name: alias, Class: h.Class}, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 11}}},
		},
	}
	edit(&m)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadAnswer(t *testing.T) {
	for _, tt := range []struct {
		name      string
		edit      func(*dnsmessage.Message)
		want      []string
		truncated bool
		err       error
	}{
		{name: "alias and two addresses", edit: func(*dnsmessage.Message) {}, want: []string{"192.0.2.10", "192.0.2.11"}},
		{name: "letters in another case", edit: func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("WWW.example.ORG.") }, want: []string{"192.0.2.10", "192.0.2.11"}},
		{name: "no address", edit: func(m *dnsmessage.Message) { m.Answers = nil }},
		{name: "another question's ID", edit: func(m *dnsmessage.Message) { m.ID = 8 }, err: errNotOurs},
		{name: "another question", edit: func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("x.example.org.") }, err: errNotOurs},
		{name: "not an answer", edit: func(m *dnsmessage.Message) { m.Response = false }, err: errNotOurs},
		{name: "no such name", edit: func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNameError }, err: front.ErrHostUnreachable},
		{name: "too long for a datagram", edit: func(m *dnsmessage.Message) { m.Truncated = true }, truncated: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addrs, truncated, err := readAnswer(answer(t, tt.edit), 7, question)
			var want []netip.Addr
			for _, a := range tt.want {
				want = append(want, netip.MustParseAddr(a))
			}
			if !slices.Equal(addrs, want) || truncated != tt.truncated || !errors.Is(err, tt.err) {
				t.Errorf("%v, truncated %v, %v", addrs, truncated, err)
			}
		})
	}
	if _, _, err := readAnswer(answer(t, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }), 7, question); err == nil || errors.Is(err, front.ErrHostUnreachable) {
		t.Errorf("a server that fails is no reason to stop asking others: %v", err)
	}
}

// Whatever a name server sends: no panic, no more addresses than there is room
// for, and only those of the family asked for.
func FuzzReadAnswer(f *testing.F) {
	f.Add(answer(f, func(*dnsmessage.Message) {}))
	f.Add(answer(f, func(m *dnsmessage.Message) { m.Truncated = true }))
	f.Fuzz(func(t *testing.T, b []byte) {
		addrs, _, _ := readAnswer(b, 7, question)
		if len(addrs) > maxAddresses || slices.ContainsFunc(addrs, netip.Addr.Is6) {
			t.Errorf("%v", addrs)
		}
	})
}
