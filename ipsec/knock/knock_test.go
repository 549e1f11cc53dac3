package knock

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	key = NewKey(ed25519.PublicKey(bytes.Repeat([]byte{1}, 32)), "/secret")
	day = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
)

// first makes a message with a marked nonce; change may be nil.
func first(t *testing.T, k Key, at time.Time, spi uint64, change func(*message.Message)) []byte {
	t.Helper()
	random := bytes.Repeat([]byte{byte(spi)}, 32)
	m := message.Message{
		Header: message.Header{InitiatorSPI: spi, Version: message.Version2, Exchange: message.IKESAInit, Flags: message.FlagInitiator},
		Payloads: []message.Payload{
			&message.KE{Group: 31, Data: make([]byte, 32)},
			&message.Nonce{Data: append(random, k.Mark(at, spi, random)...)},
		},
	}
	if change != nil {
		change(&m)
	}
	b, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMark is the example of docs/protocol.md.
func TestMark(t *testing.T) {
	server := make(ed25519.PublicKey, 32)
	for i := range server {
		server[i] = byte(i)
	}
	random := make([]byte, 32)
	for i := range random {
		random[i] = byte(0x40 + i)
	}
	k := NewKey(server, "/secret")
	got := fmt.Sprintf("%x", k.Mark(day, 0x0102030405060708, random))
	if want := "98f968952def78cd519c942c41755402"; got != want {
		t.Errorf("mark is %s, want %s", got, want)
	}
	if s := fmt.Sprint(k); s != "redacted" {
		t.Errorf("the key shows as %s", s)
	}
}

func TestDoor(t *testing.T) {
	other := NewKey(ed25519.PublicKey(bytes.Repeat([]byte{1}, 32)), "/other")
	nonce := func(f func([]byte) []byte) func(*message.Message) {
		return func(m *message.Message) {
			n := m.Payloads[1].(*message.Nonce)
			n.Data = f(n.Data)
		}
	}
	for _, c := range []struct {
		name string
		msg  []byte
		want bool
	}{
		{"a mark", first(t, key, day, 7, nil), true},
		{"a clock that is four minutes slow", first(t, key, day.Add(-4*time.Minute), 7, nil), true},
		{"a clock that is four minutes fast", first(t, key, day.Add(4*time.Minute), 7, nil), true},
		{"an old mark", first(t, key, day.Add(-6*time.Minute-time.Second), 7, nil), false},
		{"a mark of tomorrow", first(t, key, day.Add(24*time.Hour), 7, nil), false},
		{"another path", first(t, other, day, 7, nil), false},
		{"another SPI", first(t, key, day, 7, func(m *message.Message) { m.InitiatorSPI = 8 }), false},
		{"a changed nonce", first(t, key, day, 7, nonce(func(b []byte) []byte { b[0]++; return b })), false},
		{"a changed mark", first(t, key, day, 7, nonce(func(b []byte) []byte { b[len(b)-1]++; return b })), false},
		{"no mark", first(t, key, day, 7, nonce(func(b []byte) []byte { return b[:32] })), false},
		{"a short nonce", first(t, key, day, 7, nonce(func(b []byte) []byte { return b[:16] })), false},
		{"no nonce", first(t, key, day, 7, func(m *message.Message) { m.Payloads = m.Payloads[:1] }), false},
		{"a response", first(t, key, day, 7, func(m *message.Message) { m.Flags = message.FlagResponse }), false},
		{"a responder's SPI", first(t, key, day, 7, func(m *message.Message) { m.ResponderSPI = 1 }), false},
		{"another version", first(t, key, day, 7, func(m *message.Message) { m.Version = 0x30 }), false},
		{"IKE_AUTH", first(t, key, day, 7, func(m *message.Message) { m.Exchange = message.IKEAuth }), false},
		{"half a message", first(t, key, day, 7, nil)[:60], false},
		{"nothing", nil, false},
	} {
		if got := NewDoor(key).Opens(day, c.msg, "udp", "192.0.2.1"); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestReplay: a message is answered again for a while, to where it came from, and
// by each encapsulation on its own.
func TestReplay(t *testing.T) {
	msg := first(t, key, day, 7, nil)
	for _, c := range []struct {
		name, label, source string
		after               time.Duration
		want                bool
	}{
		{"sent again", "udp", "192.0.2.1", 59 * time.Second, true},
		{"too late", "udp", "192.0.2.1", time.Minute, false},
		{"from elsewhere", "udp", "192.0.2.2", 0, false},
		{"by another encapsulation", "tcp", "192.0.2.2", 0, true},
		{"much too late", "tcp", "192.0.2.2", 6 * time.Minute, false},
	} {
		d := NewDoor(key)
		if !d.Opens(day, msg, "udp", "192.0.2.1") {
			t.Fatal("the first one is not answered")
		}
		if got := d.Opens(day.Add(c.after), msg, c.label, c.source); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestMemory: what is remembered is bounded, and outlives the mark.
func TestMemory(t *testing.T) {
	d := NewDoor(key)
	for i := range maxMarks + 10 {
		if !d.fresh(day, seen{label: fmt.Sprint(i)}, "a") {
			t.Fatal("a new one is known")
		}
	}
	if len(d.known) != maxMarks || d.order.Len() != maxMarks {
		t.Errorf("%d and %d are remembered", len(d.known), d.order.Len())
	}
	d.fresh(day.Add(memory), seen{label: "later"}, "a")
	if len(d.known) != 1 || d.order.Len() != 1 {
		t.Errorf("%d and %d are left", len(d.known), d.order.Len())
	}
	// At the last moment at which a mark is good it is known to have been seen.
	d = NewDoor(key)
	late := day.Add(-skew * slot) // its clock is slow
	msg := first(t, key, late, 7, nil)
	earliest := late.Add(-skew * slot)
	if !d.Opens(earliest, msg, "udp", "a") {
		t.Fatal("not answered")
	}
	for at := earliest.Add(repeats); at.Before(earliest.Add(2 * memory)); at = at.Add(time.Second) {
		if d.Opens(at, msg, "udp", "a") {
			t.Fatalf("a replay is answered after %v", at.Sub(earliest))
		}
	}
}

func TestPlausible(t *testing.T) {
	msg := first(t, key, day, 7, nil)
	if !Plausible(msg) || !Plausible(msg[:28]) || Plausible(msg[:27]) {
		t.Error("a first message is not told by its header")
	}
	for _, change := range []func([]byte){
		func(b []byte) { binary.BigEndian.PutUint64(b, 0) },
		func(b []byte) { b[15] = 1 }, func(b []byte) { b[17] = 0x10 }, func(b []byte) { b[18] = 35 },
		func(b []byte) { b[19] = 0x20 }, func(b []byte) { b[23] = 1 },
	} {
		b := bytes.Clone(msg)
		if change(b); Plausible(b) {
			t.Errorf("% x is plausible", b[:28])
		}
	}
}
