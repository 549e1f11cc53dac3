package config

import (
	"bytes"
	"fmt"

	"github.com/BurntSushi/toml"
)

// A line is one key of a file that is written, with what it means.
type line struct {
	comment string
	key     string
	value   any
}

// render writes lines as TOML.
func render(head string, lines []line) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", head)
	for _, l := range lines {
		if l.comment != "" {
			fmt.Fprintf(&b, "\n# %s\n", l.comment)
		}
		// Strings, lists of strings, booleans and times always encode.
		_ = toml.NewEncoder(&b).Encode(map[string]any{l.key: l.value})
	}
	return b.Bytes()
}
