package esp

import (
	"bytes"
	"testing"
)

// FuzzOpen feeds the receiver what a stranger can send, and, sealed with the
// right key, what a broken peer can.
func FuzzOpen(f *testing.F) {
	out, _ := pair(f, AES128GCM, true, 0)
	f.Add(seal(f, out, packet4(20), 0))
	f.Add(seal(f, out, packet6(60), 200))
	f.Add(seal(f, out, nil, 0))
	f.Add(append(packet4(28), 1, 2, 2, 4))
	f.Add(append(packet6(44), 1, 2, 2, 41))
	f.Add([]byte{1, 2, 2, 59})
	f.Add([]byte{0, 4})
	f.Add([]byte{255, 4})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, in := pair(t, AES128GCM, true, MinWindow)
		if _, err := in.Open(bytes.Clone(b)); err == nil && in.State().Highest == 0 {
			t.Fatal("opened without moving the window")
		}
		if len(b) < trailerLen {
			return
		}
		pkt := forge(out, b, 1000)
		inner, err := in.Open(pkt)
		if err != nil || len(inner) == 0 {
			return
		}
		// What it lets through must be a packet that Seal takes.
		if _, err := out.Seal(nil, inner, 0); err != nil {
			t.Fatalf("opened %x, which Seal refuses: %v", inner, err)
		}
	})
}
