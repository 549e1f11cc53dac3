package config

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is what a key's value is.
type Kind int

// The kinds of values. Only records of clients have times.
const (
	Text Kind = iota
	List      // of texts
	Flag      // true or false
	Time
	Table
)

// A Key is one setting.
type Key struct {
	Name string // with its table, if it stands in one: "listen", "gateway.server"
	Kind Kind
}

// Flag is the key's name as a flag, such as gateway-server.
func (k Key) Flag() string { return strings.NewReplacer("_", "-", ".", "-").Replace(k.Name) }

// Variable is the key's name in the environment, for a role, "server" or
// "client": GODWIT_CLIENT_GATEWAY_SERVER.
func (k Key) Variable(role string) string {
	return variables + strings.ToUpper(role+"_"+strings.ReplaceAll(k.Name, ".", "_"))
}

// variables begins the names of all variables of ours.
const variables = "GODWIT_"

// DirVariable names the folder of a role in the environment; --dir goes before it.
func DirVariable(role string) string { return variables + strings.ToUpper(role) + "_DIR" }

// roles are those that have settings.
var roles = []string{"server", "client"}

// Keys gives all settings of a role, "server" or "client", in the order in which
// they are read. It has them from the code that reads them.
func Keys(role string) []Key {
	tables := map[string]any{}
	for {
		t := parseTable("", nil)
		t.values = map[string]any{}
		for name := range tables {
			t.values[name] = map[string]any{}
		}
		t.read(role)
		// Some keys are read only where a table is there, and others only where it
		// is not.
		plain := parseTable("", nil)
		plain.read(role)
		more := false
		var keys []Key
		for _, k := range append(plain.keys, t.keys...) {
			if k.Kind == Table {
				more = more || tables[k.Name] == nil
				tables[k.Name] = true
			} else if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
		if !more {
			return keys
		}
	}
}

// read reads t as the settings of a role.
func (t *table) read(role string) {
	if role == "server" {
		_, _ = t.server() // what is wrong stays in t
	} else {
		_, _ = t.client()
	}
}

// An Override is a setting from elsewhere than the file. It goes before the file.
type Override struct {
	Key   string // as Key.Name
	Value string // the items of a list are separated by commas
	From  string // where it stands, for errors, such as --listen
}

// value is what would stand in the file.
func (o Override) value(k Kind) any {
	switch k {
	case List:
		items := []any{}
		for item := range strings.SplitSeq(o.Value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		return items
	case Flag:
		if o.Value == "true" || o.Value == "false" {
			return o.Value == "true"
		}
	}
	return o.Value
}

// Environment finds the settings of a role among variables of the form
// NAME=VALUE, as os.Environ gives them. An empty variable counts as none. One
// that looks like ours and is not gives an *Error.
func Environment(role string, environ []string) ([]Override, error) {
	byName := map[string]Key{}
	all := []string{PasswordVariable}
	for _, r := range roles {
		all = append(all, DirVariable(r))
		for _, k := range Keys(r) {
			all = append(all, k.Variable(r))
			if r == role {
				byName[k.Variable(r)] = k
			}
		}
	}
	var over []Override
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, variables) || value == "" {
			continue
		}
		if k, ok := byName[name]; ok {
			over = append(over, Override{Key: k.Name, Value: value, From: "the environment, " + name})
			continue
		}
		if slices.Contains(all, name) {
			continue // the other role's, or no setting
		}
		similar := Suggest(name, all)
		mine := strings.HasPrefix(name, variables+strings.ToUpper(role)+"_")
		if similar == "" && !mine {
			continue // of something else
		}
		do := fmt.Sprintf("remove it; the example with all keys is that of godwit config example %s", role)
		if similar != "" {
			do = "did you mean " + similar + "?"
		}
		return nil, &Error{What: "unknown setting", Where: "the environment, " + name, Do: do}
	}
	return over, nil
}

// Docs gives what the example of a role says of each key, by Key.Name, in one
// line.
func Docs(role string) map[string]string {
	text := ReferenceClient
	if role == "server" {
		text = ReferenceServer
	}
	docs := map[string]string{}
	prefix, fresh := "", true
	var about []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		bare := strings.TrimSpace(strings.TrimPrefix(line, "#"))
		key, _, isKey := strings.Cut(bare, " = ")
		switch {
		case strings.HasPrefix(bare, "[") && strings.HasSuffix(bare, "]"):
			prefix, about, fresh = strings.Trim(bare, "[]")+".", nil, true
		case bare == "":
			about, fresh = nil, true
		case isKey && strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_") == "":
			docs[prefix+key] = strings.Join(about, " ")
			fresh = false // the next key may share the text
		default:
			if !fresh {
				about, fresh = nil, true
			}
			about = append(about, bare)
		}
	}
	return docs
}

// changed names the keys that differ.
func changed(before, after map[string]string) []string {
	var keys []string
	for k, v := range after {
		if old, ok := before[k]; !ok || old != v {
			keys = append(keys, k)
		}
	}
	for k := range before {
		if _, ok := after[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// apply has t say for keys what next says.
func (t *table) apply(next *table, keys []string) {
	for _, k := range keys {
		if v, ok := next.raw[k]; ok {
			t.raw[k] = v
		} else {
			delete(t.raw, k)
		}
	}
}
