package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a file of ours, in bytes.
const maxFile = 1 << 20

// A table holds the keys of one file that are not read yet; the first error
// stays.
type table struct {
	file   string // for errors
	values map[string]any
	known  []string // every key asked for, for suggestions
	err    error
}

// parseTable reads TOML. file names it in errors.
func parseTable(file string, data []byte) *table {
	t := &table{file: file, values: map[string]any{}}
	if len(data) > maxFile {
		t.err = &Error{What: "the file is larger than 1 MiB", Where: file, Do: "restore it from a backup"}
		return t
	}
	if _, err := toml.Decode(string(data), &t.values); err != nil {
		t.err = &Error{What: "not valid TOML", Where: file, Do: oneLine(err.Error()), Err: err}
		var pe toml.ParseError
		if errors.As(err, &pe) {
			e := &Error{What: "not valid TOML", Where: fmt.Sprintf("%s line %d", file, pe.Position.Line), Do: "mend it: " + oneLine(pe.Message), Err: err}
			if pe.LastKey != "" {
				e.Where += ", " + pe.LastKey
			}
			t.err = e
		}
	}
	return t
}

// oneLine joins a message of several lines.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// fail records what is wrong with key.
func (t *table) fail(key, what, do string) {
	if t.err == nil {
		t.err = &Error{What: what, Where: t.file + ", " + key, Do: do}
	}
}

// take removes a key from the values and gives what stood there.
func (t *table) take(key string) (any, bool) {
	t.known = append(t.known, key)
	v, ok := t.values[key]
	delete(t.values, key)
	return v, ok
}

// text reads a string; an absent key gives "".
func (t *table) text(key, example string) string {
	v, ok := t.take(key)
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		t.fail(key, "not a string", fmt.Sprintf("write it as %s = %q", key, example))
	} else if s == "" {
		t.fail(key, "an empty value", fmt.Sprintf("give a value such as %q, or remove the line", example))
	}
	return s
}

// oneOf reads a string that must be one of values; an absent key gives the
// first.
func (t *table) oneOf(key string, values ...string) string {
	s := t.text(key, values[0])
	switch {
	case s == "":
		return values[0]
	case !slices.Contains(values, s):
		t.fail(key, strconv.Quote(s)+" is not known", "write one of "+strings.Join(values, ", "))
	}
	return s
}

// need reads a string that must be there.
func (t *table) need(key, example string) string {
	_, ok := t.values[key]
	s := t.text(key, example)
	if !ok {
		t.fail(key, "a key is missing", fmt.Sprintf("add a line such as %s = %q", key, example))
	}
	return s
}

// list reads an array of strings; ok is false if the key is absent.
func (t *table) list(key, example string) (s []string, ok bool) {
	v, ok := t.take(key)
	if !ok {
		return nil, false
	}
	vs, isList := v.([]any)
	if !isList {
		t.fail(key, "not a list", fmt.Sprintf("write it as %s = [%q]", key, example))
	}
	for _, v := range vs {
		e, isText := v.(string)
		if !isText {
			t.fail(key, "the list holds something that is not a string", fmt.Sprintf("write it as %s = [%q]", key, example))
		}
		s = append(s, e)
	}
	return s, true
}

// flag reads a boolean; an absent key gives fallback.
func (t *table) flag(key string, fallback bool) bool {
	v, ok := t.take(key)
	b, isBool := v.(bool)
	switch {
	case !ok:
		return fallback
	case !isBool:
		t.fail(key, "not a boolean", "write true or false")
	}
	return b
}

// time reads a time; an absent key gives the zero time.
func (t *table) time(key string) time.Time {
	v, ok := t.take(key)
	at, isTime := v.(time.Time)
	if ok && !isTime {
		t.fail(key, "not a time", "write it as "+key+" = 2030-01-02T15:04:05Z")
	}
	return at
}

// done gives the first error; keys that nobody asked for are one.
func (t *table) done() error {
	if t.err != nil {
		return t.err
	}
	if len(t.values) == 0 {
		return nil
	}
	unknown := make([]string, 0, len(t.values))
	for k := range t.values {
		unknown = append(unknown, k)
	}
	slices.Sort(unknown)
	do := "remove it; the keys are " + strings.Join(t.known, ", ")
	if s := Suggest(unknown[0], t.known); s != "" {
		do = "did you mean " + s + "?"
	}
	return &Error{What: "unknown key", Where: t.file + ", " + strconv.Quote(unknown[0]), Do: do}
}
