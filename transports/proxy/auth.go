package proxy

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
)

// A challenge is what a proxy wants to be answered, RFC 9110, Section 11.3.
type challenge struct {
	scheme string            // in lower case
	params map[string]string // names in lower case
	stale  bool
	count  uint32 // how often the nonce was used
}

// authenticator answers challenges. It remembers the last one, so that later
// requests need not be refused first.
type authenticator struct {
	user, pass string

	mu   sync.Mutex
	last *challenge
}

// header gives Proxy-Authorization for a request, "" before the first
// challenge, and the challenge that it answers. A password is never sent before
// the proxy has said how: Basic is readable on the way.
func (a *authenticator) header(method, uri string) (*challenge, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch c := a.last; {
	case c == nil:
		return nil, ""
	case c.scheme == "basic":
		return c, "Basic " + base64.StdEncoding.EncodeToString([]byte(a.user+":"+a.pass))
	default:
		c.count++
		return c, c.digest(a.user, a.pass, method, uri, rand.Text())
	}
}

// challenged takes the values of Proxy-Authenticate and chooses the best way
// that is implemented: Digest with SHA-256, Digest with MD5, Basic.
func (a *authenticator) challenged(values []string) (*challenge, error) {
	var best *challenge
	var seen []string
	for _, v := range values {
		for _, c := range parseChallenges(v) {
			seen = append(seen, c.scheme)
			if c.strength() > 0 && (best == nil || c.strength() > best.strength()) {
				best = c
			}
		}
	}
	switch {
	case best == nil:
		return nil, fmt.Errorf("%w: it wants one of %q, and Basic and Digest are what is implemented", ErrCredentials, seen)
	case a.user == "" && a.pass == "":
		return nil, fmt.Errorf("%w: it wants some (%s), and the settings name none", ErrCredentials, best.scheme)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = best
	return best, nil
}

// strength orders the ways; 0 is one that is not implemented.
func (c *challenge) strength() int {
	if c.scheme == "basic" {
		return 1
	}
	if c.scheme != "digest" || c.params["nonce"] == "" {
		return 0
	}
	if q, ok := c.params["qop"]; ok && !hasQop(q, "auth") {
		return 0
	}
	switch c.algorithm() {
	case "md5", "md5-sess":
		return 2
	case "sha-256", "sha-256-sess":
		return 3
	}
	return 0
}

// algorithm is MD5 when none is named: RFC 7616, Section 3.3.
func (c *challenge) algorithm() string {
	if a := c.params["algorithm"]; a != "" {
		return strings.ToLower(a)
	}
	return "md5"
}

func hasQop(list, want string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(q string) bool {
		return strings.EqualFold(strings.TrimSpace(q), want)
	})
}

// digest gives the answer of RFC 7616, Section 3.4.
func (c *challenge) digest(user, pass, method, uri, cnonce string) string {
	h := func(parts ...string) string {
		var f hash.Hash = md5.New()
		if strings.HasPrefix(c.algorithm(), "sha-256") {
			f = sha256.New()
		}
		f.Write([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(f.Sum(nil))
	}
	realm, nonce := c.params["realm"], c.params["nonce"]
	nc := fmt.Sprintf("%08x", c.count)
	ha1, ha2 := h(user, realm, pass), h(method, uri)
	if strings.HasSuffix(c.algorithm(), "-sess") {
		ha1 = h(ha1, nonce, cnonce)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Digest username=%s, realm=%s, nonce=%s, uri=%s", quote(user), quote(realm), quote(nonce), quote(uri))
	if _, ok := c.params["qop"]; ok {
		fmt.Fprintf(&b, `, qop=auth, nc=%s, cnonce=%s, response="%s"`, nc, quote(cnonce), h(ha1, nonce, nc, cnonce, "auth", ha2))
	} else {
		// What RFC 2069 had, before there was a qop.
		fmt.Fprintf(&b, `, response="%s"`, h(ha1, nonce, ha2))
	}
	if a := c.params["algorithm"]; a != "" {
		b.WriteString(", algorithm=" + a)
	}
	if o, ok := c.params["opaque"]; ok {
		b.WriteString(", opaque=" + quote(o))
	}
	return b.String()
}

// quote makes a quoted-string, RFC 9110, Section 5.6.4. Control characters
// cannot stand in one and would end the header.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= 0x20 && c != 0x7f:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// parseChallenges reads one header's challenges. A comma separates both
// challenges and parameters: a word that is not followed by "=" begins the next
// challenge. What it cannot read ends it.
func parseChallenges(s string) (out []*challenge) {
	p := scanner(s)
	var c *challenge
	for {
		p.skip(", \t")
		word := p.token()
		if word == "" {
			return out
		}
		spaces := p.skip(" \t")
		if p.peek() != '=' || c == nil {
			c = &challenge{scheme: strings.ToLower(word), params: map[string]string{}}
			out = append(out, c)
			if spaces == 0 && p.peek() != ',' {
				return out
			}
			continue
		}
		p.skip("=")
		p.skip(" \t")
		name, value := strings.ToLower(word), p.value()
		c.params[name] = value
		if name == "stale" {
			c.stale = strings.EqualFold(value, "true")
		}
	}
}

// A scanner is what is left of a header.
type scanner string

func (s *scanner) peek() byte {
	if *s == "" {
		return 0
	}
	return (*s)[0]
}

// skip leaves out characters of set and tells how many.
func (s *scanner) skip(set string) int {
	rest := strings.TrimLeft(string(*s), set)
	n := len(*s) - len(rest)
	*s = scanner(rest)
	return n
}

// token reads up to what cannot stand in one, RFC 9110, Section 5.6.2, as far
// as this matters here.
func (s *scanner) token() string {
	n := strings.IndexAny(string(*s), " \t,=\"\r\n")
	if n < 0 {
		n = len(*s)
	}
	t := string((*s)[:n])
	*s = (*s)[n:]
	return t
}

// value reads a token or a quoted-string. Line ends are left out.
func (s *scanner) value() string {
	if s.peek() != '"' {
		return s.token()
	}
	var b strings.Builder
	for i := 1; i < len(*s); i++ {
		switch c := (*s)[i]; {
		case c == '"':
			*s = (*s)[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(*s):
			i++
			b.WriteByte((*s)[i])
		default:
			b.WriteByte(c)
		}
	}
	*s = ""
	return b.String()
}
