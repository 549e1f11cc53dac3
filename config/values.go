package config

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
)

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

// enrolment reads what JoinClient wrote; an absent key gives nil.
func (t *table) enrolment() []byte {
	const key = "enrolment"
	s := t.text(key, "the text that godwit client join wrote")
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || s != "" && len(b) != enrolmentSize {
		t.fail(key, "not an enrolment", "it is 128 characters of base64; copy it whole, or join again")
	}
	if len(b) == 0 {
		return nil
	}
	return b
}

// optional reads the name of a host, which may be left empty. It becomes part
// of a request, so it holds nothing but what a host and a port are made of.
func (t *table) optional(key string) string {
	v, ok := t.take(key, Text)
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

func (t *table) inner(key, example string) netip.Addr {
	s := t.need(key, example)
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4() != !strings.Contains(example, ":") {
		t.fail(key, strconv.Quote(s)+" is not an address of the right family", fmt.Sprintf("write it as %q", example))
	}
	return a
}
