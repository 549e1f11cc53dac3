package main

import (
	"strings"
	"testing"

	"rsc.io/qr"
)

// What is drawn is the code, module by module, in its quiet zone, dark on light.
func TestQR(t *testing.T) {
	for _, text := range []string{"x", "godwit://v1/" + strings.Repeat("aB3_", 60)} {
		var b strings.Builder
		if err := writeQR(&b, text); err != nil {
			t.Fatal(err)
		}
		code, err := qr.Encode(text, qr.L)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != (code.Size+2*quietZone+1)/2 {
			t.Fatalf("%d lines for %d modules", len(lines), code.Size)
		}
		for i, line := range lines {
			glyphs := []rune(line)
			if len(glyphs) != code.Size+2*quietZone {
				t.Fatalf("line %d has %d characters for %d modules", i, len(glyphs), code.Size)
			}
			for x, g := range glyphs {
				upper, lower := g == '█' || g == '▀', g == '█' || g == '▄'
				x, y := x-quietZone, 2*i-quietZone
				last := y+1 == code.Size+quietZone
				if upper == code.Black(x, y) || !last && lower == code.Black(x, y+1) || last && lower {
					t.Fatalf("%q at %d, %d", g, x, y)
				}
			}
		}
	}
	if err := writeQR(&strings.Builder{}, strings.Repeat("long", 2000)); err == nil {
		t.Error("8000 bytes fit")
	}
}
