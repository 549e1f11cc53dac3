package site

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/godwit-net/godwit/transports"
)

// maxHops bounds the entries that are looked at, from the last one on.
const maxHops = 32

// forwardedFor gives the visitor that a trusted reverse proxy asks for: the last
// one named that is no trusted proxy itself, as what stands before it was sent by
// that one. The port is zero where it is not told. It is false where nothing is
// said that can be believed.
//
// Most proxies write X-Forwarded-For, some Forwarded (RFC 7239), and each passes on
// what the visitor has written in the other's place. So where both are there they
// have to agree.
func forwardedFor(h http.Header, trusted func(netip.Addr) bool) (netip.AddrPort, bool) {
	x, xok := last(h.Values("X-Forwarded-For"), nodeOf, trusted)
	f, fok := last(h.Values("Forwarded"), func(e string) (netip.AddrPort, bool) { return nodeOf(parameter(e, "for")) }, trusted)
	hasX, hasF := len(h.Values("X-Forwarded-For")) > 0, len(h.Values("Forwarded")) > 0
	switch {
	case hasX && hasF:
		agree := xok && fok && x.Addr() == f.Addr()
		if f.Port() == 0 {
			f = x
		}
		return f, agree
	case hasX:
		return x, xok
	}
	return f, fok
}

// last walks a list from its end to the first node that is not trusted.
func last(values []string, node func(string) (netip.AddrPort, bool), trusted func(netip.Addr) bool) (at netip.AddrPort, ok bool) {
	rest := strings.Join(values, ",")
	for range maxHops {
		entry := rest
		if i := strings.LastIndexByte(rest, ','); i >= 0 {
			rest, entry = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		n, good := node(strings.TrimSpace(entry))
		if !good {
			return at, ok
		}
		if at, ok = n, true; rest == "" || !trusted(n.Addr()) {
			return at, ok
		}
	}
	return at, ok
}

// parameter gives one of an element's pairs, RFC 7239, Section 4. A comma or a
// semicolon within quotes cannot be part of an address, so nothing is lost by
// cutting there.
func parameter(element, name string) string {
	for pair := range strings.SplitSeq(element, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if strings.EqualFold(k, name) {
			if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
				v = v[1 : n-1]
			}
			return v
		}
	}
	return ""
}

// nodeOf reads an address, with or without a port and brackets. Obfuscated names
// and "unknown" (RFC 7239, Section 6) are none.
func nodeOf(s string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil && a.Zone() == "" {
		return netip.AddrPortFrom(a.Unmap(), 0), true
	}
	if a, err := netip.ParseAddrPort(s); err == nil && a.Addr().Zone() == "" {
		return transports.Unmap(a), true
	}
	return netip.AddrPort{}, false
}

// forwardedTLS tells whether the visitor has reached the proxy over TLS, by the
// last proxy's word.
func forwardedTLS(h http.Header) bool {
	proto := h.Get("X-Forwarded-Proto")
	if all := strings.Join(h.Values("Forwarded"), ","); proto == "" && all != "" {
		proto = parameter(all[strings.LastIndexByte(all, ',')+1:], "proto")
	}
	return strings.EqualFold(proto, "https")
}
