package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a file of ours, in bytes.
const maxFile = 1 << 20

// A table holds the keys of one file, or of one table in it, that are not read
// yet; the first error stays.
//
// Reading a key declares it: from the declarations come the flags, the variables
// of the environment, and the check that the example explains every key. So no
// key can be forgotten.
type table struct {
	file   string // for errors
	name   string // of the table with a dot behind; "" for the file itself
	values map[string]any
	over   map[string]Override // by the whole name; they go before values
	lines  map[string]int      // by the whole name, beginning with 1
	keys   []Key               // those declared
	raw    map[string]string   // what stood there, by the whole name
	err    error
}

// parseTable reads TOML. file names it in errors.
func parseTable(file string, data []byte, over ...Override) *table {
	t := &table{file: file, values: map[string]any{}, over: map[string]Override{}, raw: map[string]string{}}
	for _, o := range over {
		t.over[o.Key] = o
	}
	if len(data) > maxFile {
		t.err = &Error{What: "the file is larger than 1 MiB", Where: file, Do: "restore it from a backup"}
		return t
	}
	t.lines = keyLines(data)
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

// keyLines finds the line of each key and of each table's head. It reads what
// people write, not all of TOML: a key that it misses is named without a line.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	prefix, inside := "", ""
	n := 0
	for text := range strings.Lines(string(data)) {
		n++
		if inside != "" { // a string of several lines
			if strings.Contains(text, inside) {
				inside = ""
			}
			continue
		}
		if head := strings.TrimSpace(text); strings.HasPrefix(head, "[") {
			if name, _, ok := strings.Cut(head[1:], "]"); ok && strings.Trim(name, nameCharacters+".") == "" {
				prefix, lines[name] = name+".", n
			}
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		key = strings.Trim(strings.TrimSpace(key), `"'`)
		if !ok || key == "" || strings.Trim(key, nameCharacters+".") != "" {
			continue
		}
		if _, twice := lines[prefix+key]; !twice {
			lines[prefix+key] = n
		}
		for _, quote := range []string{`"""`, `'''`} {
			if strings.Count(value, quote)%2 == 1 {
				inside = quote
			}
		}
	}
	return lines
}

// oneLine joins a message of several lines.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// where names a key, and the line it stands in; the key alone where no file was
// read.
func (t *table) where(key string) string {
	if t == nil {
		return key
	}
	if o, ok := t.over[t.name+key]; ok {
		return o.From
	}
	w := t.file
	if n := t.lines[t.name+key]; n > 0 {
		w += fmt.Sprintf(" line %d", n)
	}
	if t.name != "" {
		w += ", [" + strings.TrimSuffix(t.name, ".") + "]"
	}
	return w + ", " + key
}

// fail records what is wrong with key.
func (t *table) fail(key, what, do string) {
	if t.err == nil {
		t.err = &Error{What: what, Where: t.where(key), Do: do}
	}
}

// declare says that there is such a key, for those that are read in some cases
// only.
func (t *table) declare(k Kind, keys ...string) {
	for _, key := range keys {
		t.keys = append(t.keys, Key{Name: t.name + key, Kind: k})
	}
}

// has tells whether key is given.
func (t *table) has(key string) bool {
	_, over := t.over[t.name+key]
	_, ok := t.values[key]
	return ok || over
}

// take declares a key, removes it from the values and gives what stood there.
func (t *table) take(key string, k Kind) (any, bool) {
	t.declare(k, key)
	v, ok := t.values[key]
	delete(t.values, key)
	if o, over := t.over[t.name+key]; over {
		v, ok = o.value(k), true
	}
	if ok && k != Table {
		t.raw[t.name+key] = fmt.Sprintf("%#v", v) // what differs looks different
	}
	return v, ok
}

// sub takes a table inside this one; nil if there is none. Its join gives back
// what was found.
func (t *table) sub(key string) *table {
	v, ok := t.take(key, Table)
	for name := range t.over {
		if !ok && strings.HasPrefix(name, t.name+key+".") {
			v, ok = map[string]any{}, true
		}
	}
	if !ok {
		return nil
	}
	values, isTable := v.(map[string]any)
	if !isTable {
		t.fail(key, "not a table", "write ["+key+"] on a line of its own and its keys below")
		return nil
	}
	return &table{file: t.file, name: t.name + key + ".", values: values, over: t.over, lines: t.lines, raw: t.raw, err: t.err}
}

// join takes over the keys and the first error of a table inside this one.
func (t *table) join(s *table) {
	t.keys = append(t.keys, s.keys...)
	if err := s.done(); t.err == nil {
		t.err = err
	}
}

// text reads a string; an absent key gives "".
func (t *table) text(key, example string) string {
	v, ok := t.take(key, Text)
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

// postQuantum reads the key that both ends have.
func (t *table) postQuantum() string { return t.oneOf("post_quantum", "prefer", "require", "never") }

// need reads a string that must be there.
func (t *table) need(key, example string) string {
	ok := t.has(key)
	s := t.text(key, example)
	if !ok {
		t.fail(key, "a key is missing", fmt.Sprintf("add a line such as %s = %q", key, example))
	}
	return s
}

// list reads an array of strings; ok is false if the key is absent.
func (t *table) list(key, example string) (s []string, ok bool) {
	v, ok := t.take(key, List)
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
	v, ok := t.take(key, Flag)
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
	v, ok := t.take(key, Time)
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
	unknown := slices.Collect(maps.Keys(t.values))
	slices.SortFunc(unknown, func(a, b string) int {
		return cmp.Or(cmp.Compare(t.lines[t.name+a], t.lines[t.name+b]), strings.Compare(a, b))
	})
	var known []string
	for _, k := range t.keys {
		if name, ok := strings.CutPrefix(k.Name, t.name); ok && !strings.Contains(name, ".") {
			known = append(known, name)
		}
	}
	do := "remove it; the keys are " + strings.Join(known, ", ")
	if s := Suggest(unknown[0], known); s != "" {
		do = "did you mean " + s + "?"
	}
	where := strings.TrimSuffix(t.where(unknown[0]), unknown[0]) + strconv.Quote(unknown[0])
	return &Error{What: "unknown key", Where: where, Do: do}
}
