package link

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

func TestReport(t *testing.T) {
	r := report{
		state: regmsg.ReceiveState{SPI: 0x01020304, Highest: 0x0506070800000009, Missing: []byte{0x80, 0x01}},
		bytes: 1 << 40, arrived: 0xfffffffe, ago: 1500 * time.Microsecond,
	}
	b := r.append(nil)
	want := []byte{
		0x91, 1, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 1, 0, 0, 0, 0, 0,
		0xff, 0xff, 0xff, 0xfe, 0, 0, 0x05, 0xdc, 0x80, 0x01,
	}
	if !bytes.Equal(b, want) {
		t.Errorf("% x, want % x", b, want)
	}
	if got, ok := parseReport(append(b, 0, 0)); !ok || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v %v, want %+v", got, ok, r)
	}
	for n := range want {
		if _, ok := parseReport(want[:n]); ok {
			t.Errorf("%d bytes are no report", n)
		}
	}
	r.state.Missing, r.ago = make([]byte, 200), 10*time.Hour
	if got, ok := parseReport(r.append(nil)); !ok || len(got.state.Missing) != maxMissing || got.ago.Truncate(time.Second) != 4294*time.Second {
		t.Errorf("beyond the bounds: %d %v", len(got.state.Missing), got.ago)
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte{0x91, 1, 0, 1, 31: 0, 32: 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseReport(b)
		if !ok {
			return
		}
		again, ok := parseReport(r.append(nil))
		if !ok || !bytes.Equal(again.state.Missing, r.state.Missing) || again.ago != r.ago || again.state.Highest != r.state.Highest {
			t.Errorf("%+v became %+v", r, again)
		}
	})
}
