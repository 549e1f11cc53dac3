package config

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
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

// Suggest gives the one of known that word most likely stands for, or "".
func Suggest(word string, known []string) string {
	const most = 2 // letters that may be wrong
	best, at := most+1, ""
	for _, k := range known {
		// Cut short rather than mistyped.
		if len(word) > 2 && strings.HasPrefix(k, strings.ToLower(word)) {
			return k
		}
		d := distance(strings.ToLower(word), strings.ToLower(k))
		// A short word is near every other short word.
		if d < best && d*2 < len(k) {
			best, at = d, k
		}
	}
	return at
}

// distance is the number of letters to insert, remove or change between a and b.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func (t *table) addrPort(key string, fallback netip.AddrPort) netip.AddrPort {
	s := t.text(key, fallback.String())
	if s == "" {
		return fallback
	}
	// ":443" means every address, as it does elsewhere.
	if strings.HasPrefix(s, ":") {
		s = "[::]" + s
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		t.fail(key, strconv.Quote(s)+" is not an address and a port", fmt.Sprintf("write it as %q", fallback))
	}
	return ap
}

func (t *table) hostPort(key string) string {
	s := t.need(key, "vpn.example.org:443")
	if s != "" {
		if err := CheckEndpoint(s); err != nil {
			t.fail(key, err.Error(), "write it as \"vpn.example.org:443\"")
		}
	}
	return s
}

func (t *table) pool(key string, fallback netip.Prefix) netip.Prefix {
	s := t.text(key, fallback.String())
	if s == "" {
		return fallback
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p != p.Masked() || p.Addr().Is4() != fallback.Addr().Is4() || p.Addr().Is4In6():
		t.fail(key, strconv.Quote(s)+" is not a range of the right family", fmt.Sprintf("write it as %q", fallback))
	case p.Addr().BitLen()-p.Bits() < 2:
		t.fail(key, strconv.Quote(s)+" has no room for a client", fmt.Sprintf("use a wider range such as %q", fallback))
	}
	return p
}

func (t *table) encapsulations() []string {
	const key = "encapsulations"
	names, ok := t.list(key, "udp")
	if !ok {
		return DefaultEncapsulations()
	}
	if err := CheckEncapsulations(names); err != nil {
		var e *Error
		errors.As(err, &e)
		t.fail(key, e.What, e.Do)
	}
	return names
}

func (t *table) path() string {
	const key = "websocket_path"
	s := t.need(key, "/a-long-random-word")
	if s != "" {
		if err := checkPath(s); err != nil {
			t.fail(key, err.Error(), "write a path such as \"/a-long-random-word\"")
		}
	}
	return s
}

func (t *table) level() slog.Level {
	const key = "log_level"
	s := t.text(key, "info")
	l := slog.LevelInfo
	if s != "" {
		var err error
		if l, err = ParseLevel(s); err != nil {
			t.fail(key, err.Error(), "write debug, info, warn or error")
		}
	}
	return l
}

func (t *table) publicKey(key string) ed25519.PublicKey {
	s := t.need(key, base64.StdEncoding.EncodeToString(make([]byte, ed25519.PublicKeySize)))
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if s != "" && (err != nil || len(b) != ed25519.PublicKeySize) {
		t.fail(key, "not a public key", "it is 44 characters of base64; copy it whole")
		return nil
	}
	return b
}

// ParseLevel reads a log level's name.
func ParseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is not a log level", s)
}

// CheckEndpoint tells whether s is host:port with a port that can be dialled.
func CheckEndpoint(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no port between 1 and 65535", s)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() {
			return fmt.Errorf("%q is an address that nobody can dial", s)
		}
		return nil
	}
	if len(host) == 0 || len(host) > 253 {
		return fmt.Errorf("%q has no host name of 1 to 253 characters", s)
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, nameCharacters) != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%q has a host that is neither a name nor an address", s)
		}
	}
	return nil
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// CheckEncapsulations tells whether names are encapsulations that can be
// configured, each at most once. The error is an *Error.
func CheckEncapsulations(names []string) error {
	known := append([]string{"esp"}, DefaultEncapsulations()...)
	if len(names) == 0 {
		return &Error{What: "no encapsulation is named", Do: "name one or more of " + strings.Join(known, ", ")}
	}
	if len(names) == 1 && names[0] == "esp" {
		return &Error{What: "esp cannot be alone: links begin with another encapsulation", Do: "name udp or another beside it"}
	}
	for i, n := range names {
		if !slices.Contains(known, n) {
			do := "use one or more of " + strings.Join(known, ", ")
			if s := Suggest(n, known); s != "" {
				do = "did you mean " + s + "?"
			}
			return &Error{What: strconv.Quote(n) + " is not an encapsulation", Do: do}
		}
		if slices.Contains(names[:i], n) {
			return &Error{What: n + " is named twice", Do: "name it once"}
		}
	}
	return nil
}

// CheckName tells whether a client may be called name: it becomes a file's name
// on any system. The error is an *Error.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 64 && strings.Trim(name, nameCharacters+".") == "" &&
		name[0] != '.' && name[0] != '-' && name[len(name)-1] != '.'
	// Windows gives these a meaning of their own, whatever their ending.
	stem, _, _ := strings.Cut(strings.ToLower(name), ".")
	reserved := slices.Contains([]string{"con", "prn", "aux", "nul"}, stem) ||
		len(stem) == 4 && (strings.HasPrefix(stem, "com") || strings.HasPrefix(stem, "lpt"))
	if !ok || reserved {
		return &Error{What: "not a client name", Where: strconv.Quote(name), Do: "use 1 to 64 letters, digits, dots, hyphens or underscores, beginning with a letter or digit"}
	}
	return nil
}

// checkPath tells whether s can be a request path as it stands.
func checkPath(s string) error {
	if len(s) < 2 || len(s) > 255 || s[0] != '/' || strings.Trim(s, nameCharacters+"/.~") != "" || strings.Contains(s, "//") {
		return fmt.Errorf("%q is not a path of 2 to 255 plain characters that begins with a slash", s)
	}
	return nil
}

// ParseServer reads server.toml. file names it in errors.
func ParseServer(file string, data []byte) (*Server, error) {
	t := parseTable(file, data)
	s := &Server{Endpoint: t.hostPort("endpoint")}
	s.Listen = t.addrPort("listen", defaultServerListen(s.Endpoint))
	allow, _ := t.list("allow", "192.0.2.0/24")
	for _, a := range allow {
		p, err := ParseAllow(a)
		if err != nil {
			t.fail("allow", err.Error(), "write a range such as \"192.0.2.0/24\"")
		}
		s.Allow = append(s.Allow, p)
	}
	s.Pool4 = t.pool("pool4", DefaultPool4)
	s.Pool6 = t.pool("pool6", DefaultPool6)
	s.Encapsulations = t.encapsulations()
	s.WebSocketPath = t.path()
	s.NoOffload = !t.flag("offload", true)
	s.LogLevel = t.level()
	s.IKEv2 = t.ikev2(s)
	if err := t.done(); err != nil {
		return nil, err
	}
	return s, nil
}

// ParseAllow reads a range, or a single address, whose host bits must be zero.
func ParseAllow(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a range of addresses", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its length; the range is %s", s, p.Masked())
	}
	return p, nil
}

// defaultServerListen is [::] and the endpoint's port.
func defaultServerListen(endpoint string) netip.AddrPort {
	_, port, _ := net.SplitHostPort(endpoint)
	n, _ := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n))
}

// ParseClient reads client.toml. file names it in errors.
func ParseClient(file string, data []byte) (*Client, error) {
	t := parseTable(file, data)
	if g := t.gateway(); g != nil {
		c := &Client{Gateway: g, Name: g.Local, Server: g.Server}
		c.Encapsulations = []string{"udp"}
		if err := t.local(c); err != nil {
			return nil, err
		}
		return c, nil
	}
	c := &Client{Name: t.need("name", "laptop"), Server: t.hostPort("server")}
	if c.Name != "" {
		if err := CheckName(c.Name); err != nil {
			t.fail("name", strconv.Quote(c.Name)+" is not a client name", "write the name that the server gave")
		}
	}
	c.ServerKey = t.publicKey("server_key")
	hash := t.need("cert_hash", strings.Repeat("0", 64))
	if b, err := hex.DecodeString(hash); err == nil && len(b) == len(c.CertHash) {
		copy(c.CertHash[:], b)
	} else {
		t.fail("cert_hash", "not a SHA-256", "it is 64 hexadecimal digits; copy it whole")
	}
	c.WebSocketPath = t.path()
	c.Encapsulations = t.encapsulations()
	c.NoTLS = !t.flag("tls", true)
	c.ServerName = t.optional("server_name")
	c.HTTPHost = t.optional("http_host")
	c.Verify = t.oneOf("verify", "pin", "webpki")
	c.Fingerprint = t.oneOf("fingerprint", "chrome", "firefox", "go")
	c.Proxy = t.proxy()
	if err := t.local(c); err != nil {
		return nil, err
	}
	return c, nil
}

// local reads the keys that have nothing to do with the server.
func (t *table) local(c *Client) error {
	c.Listen = t.addrPort("listen", DefaultListen)
	c.Forward, _ = t.list("forward", "tcp 127.0.0.1:2222 git.example.org:22")
	c.EarlyData = t.oneOf("early_data", "known", "always", "never")
	c.NoOffload = !t.flag("offload", true)
	c.LogLevel = t.level()
	return t.done()
}

// optional reads the name of a host, which may be left empty. It becomes part
// of a request, so it holds nothing but what a host and a port are made of.
func (t *table) optional(key string) string {
	v, ok := t.take(key)
	s, isText := v.(string)
	switch {
	case !ok:
	case !isText:
		t.fail(key, "not a string", `write the name of a host in quotes, or ""`)
	case len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && r != ':' && r != '[' && r != ']' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}):
		t.fail(key, strconv.Quote(s)+" is not the name of a host", `write it as "www.example.org", or ""`)
	}
	return s
}

// proxy reads the upstream proxy; its URL is parsed by whoever uses it. What
// stands there is not repeated, as it may hold a password.
func (t *table) proxy() string {
	v := t.text("proxy", "http://proxy.example.org:3128")
	if v == "" {
		return "environment"
	}
	return v
}

// parseRecord reads clients/NAME.toml.
func parseRecord(file, name string, data []byte) (*ClientRecord, error) {
	t := parseTable(file, data)
	r := &ClientRecord{Name: name}
	if _, user := t.values["identity"]; user {
		r.Identity = t.need("identity", "carol@example.org")
		r.PSK, r.Password = t.text("psk", "a secret"), t.text("password", "a secret")
		r.Certified = t.flag("certificate", false)
		if btoi(r.PSK != "")+btoi(r.Password != "")+btoi(r.Certified) != 1 {
			t.fail("psk", "a user needs one of psk, password or certificate", "remove the user and add it again")
		}
	} else {
		r.PublicKey = t.publicKey("public_key")
	}
	r.Inner4 = t.inner("inner4", "10.143.0.2")
	r.Inner6 = t.inner("inner6", "fd2c:9f61:7e0b::2")
	r.Created, r.Expires, r.Joined = t.time("created"), t.time("expires"), t.flag("joined", false)
	if !r.Joined && r.Expires.IsZero() {
		t.fail("expires", "neither joined nor a time of expiry", "remove the client and invite it again")
	}
	if err := t.done(); err != nil {
		return nil, err
	}
	return r, nil
}

func (t *table) inner(key, example string) netip.Addr {
	s := t.need(key, example)
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4() != !strings.Contains(example, ":") {
		t.fail(key, strconv.Quote(s)+" is not an address of the right family", fmt.Sprintf("write it as %q", example))
	}
	return a
}

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

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

// Encode writes s as server.toml.
func (s *Server) Encode() []byte {
	allow := make([]string, 0, len(s.Allow))
	for _, p := range s.Allow {
		allow = append(allow, p.String())
	}
	return render("godwit server; every key is explained in reference-server.toml.", []line{
		{"Where clients dial; links carry it.", "endpoint", s.Endpoint},
		{"The one address and port of all encapsulations.", "listen", s.Listen.String()},
		{"Ranges that clients may reach although they are private, loopback or link-local.", "allow", allow},
		{"Inner addresses; the first of each range is the server's.", "pool4", s.Pool4.String()},
		{"", "pool6", s.Pool6.String()},
		{"", "encapsulations", s.Encapsulations},
		{"Secret: whoever asks for another path sees an ordinary web server.", "websocket_path", s.WebSocketPath},
		{"debug, info, warn or error", "log_level", levelName(s.LogLevel)},
		{"Many packets at once; false is for looking for faults.", "offload", !s.NoOffload},
	})
}

// Encode writes c as client.toml.
func (c *Client) Encode() []byte {
	return render("godwit client; every key is explained in reference-client.toml.", []line{
		{"", "name", c.Name},
		{"The server and what it is known by.", "server", c.Server},
		{"", "server_key", base64.StdEncoding.EncodeToString(c.ServerKey)},
		{"", "cert_hash", hex.EncodeToString(c.CertHash[:])},
		{"", "websocket_path", c.WebSocketPath},
		{"The SOCKS5 and HTTP proxy for your programs.", "listen", c.Listen.String()},
		{"In order of preference.", "encapsulations", c.Encapsulations},
		{"debug, info, warn or error", "log_level", levelName(c.LogLevel)},
		{"How websocket looks from outside: with TLS or not, under which names, as which browser.", "tls", !c.NoTLS},
		{"", "server_name", c.ServerName},
		{"", "http_host", c.HTTPHost},
		{"", "verify", cmp.Or(c.Verify, "pin")},
		{"", "fingerprint", cmp.Or(c.Fingerprint, "chrome")},
		{"The way out of an office: http://HOST:PORT, environment or none.", "proxy", cmp.Or(c.Proxy, "environment")},
		{"When a stream's first bytes need not wait for its destination.", "early_data", cmp.Or(c.EarlyData, "known")},
		{"Many packets at once; false is for looking for faults.", "offload", !c.NoOffload},
	})
}

func (r *ClientRecord) encode() []byte {
	lines := []line{{"", "public_key", base64.StdEncoding.EncodeToString(r.PublicKey)}}
	if r.Identity != "" {
		lines = []line{{"What the user's IKEv2 client calls itself, and its secret.", "identity", r.Identity}}
		if r.PSK != "" {
			lines = append(lines, line{"", "psk", r.PSK})
		}
		if r.Certified {
			lines = append(lines, line{"", "certificate", true})
		}
		if r.Password != "" {
			lines = append(lines, line{"", "password", r.Password})
		}
	}
	lines = append(lines, []line{
		{"", "inner4", r.Inner4.String()},
		{"", "inner6", r.Inner6.String()},
		{"", "created", r.Created.UTC().Truncate(time.Second)},
	}...)
	if r.Joined {
		lines = append(lines, line{"", "joined", true})
	} else {
		lines = append(lines, line{"The link must be used before this.", "expires", r.Expires.UTC().Truncate(time.Second)})
	}
	return render("godwit client "+r.Name, lines)
}

// readFile reads a file of ours that may not be longer than maxFile.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, &Error{What: "not a file of up to 1 MiB", Where: path, Do: "restore it from a backup"}
	}
	return os.ReadFile(path)
}
