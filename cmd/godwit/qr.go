package main

import (
	"io"
	"os"
	"strings"

	"rsc.io/qr"

	"github.com/godwit-net/godwit/config"
)

// quietZone is the margin around a QR code, in modules (ISO/IEC 18004, Section
// 9.1): readers find the code by it.
const quietZone = 4

// writeQR draws text as a QR code with half blocks, two modules in a character.
// On a terminal the colours are set, so that the code is dark on light whatever
// the theme; elsewhere the light modules are what is written.
func writeQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return &config.Error{What: "the link does not fit a QR code: " + lastCause(err), Do: "invite without --qr", Err: err}
	}
	before, after := "", "\n"
	if isTerminal(w) {
		before, after = "\x1b[97;40m", "\x1b[0m\n" // bright white on black
	}
	light := func(x, y int) bool { return y < code.Size+quietZone && !code.Black(x, y) } // outside is not black
	var b strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		b.WriteString(before)
		for x := -quietZone; x < code.Size+quietZone; x++ {
			switch upper, lower := light(x, y), light(x, y+1); {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString(after)
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// isTerminal tells whether w shows to a person what is written to it.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
