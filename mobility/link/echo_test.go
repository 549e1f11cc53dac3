package link

import (
	"bytes"
	"testing"
	"time"
)

func TestEcho(t *testing.T) {
	e := echo{answer: true, number: 0x01020304, after: 300 * time.Second}
	want := []byte{0x92, 1, 0, 1, 1, 2, 3, 4, 0, 0, 1, 0x2c}
	b := e.append(nil)
	if !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	if got, ok := parseEcho(append(b, 0, 0, 0)); !ok || got != e {
		t.Errorf("%+v %v, want %+v", got, ok, e)
	}
	for n := range want {
		if _, ok := parseEcho(want[:n]); ok {
			t.Errorf("%d bytes are no echo", n)
		}
	}
	for _, bad := range [][]byte{
		{0x91, 1, 0, 1, 1, 2, 3, 4, 0, 0, 1, 0x2c}, // a report
		{0x92, 2, 0, 1, 1, 2, 3, 4, 0, 0, 1, 0x2c}, // of another version
		{0x92, 1, 0, 2, 1, 2, 3, 4, 0, 0, 1, 0x2c}, // neither request nor answer
		{0x92, 1, 0, 0, 1, 2, 3, 4, 0, 0, 3, 0x85}, // later than is allowed
	} {
		if _, ok := parseEcho(bad); ok {
			t.Errorf("% x is an echo", bad)
		}
	}
}

func FuzzEcho(f *testing.F) {
	f.Add([]byte{0x92, 1, 0, 1, 1, 2, 3, 4, 0, 0, 1, 0x2c, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := parseEcho(b); ok && !bytes.Equal(e.append(nil), b[:echoLength]) {
			t.Errorf("%+v of % x", e, b)
		}
	})
}
