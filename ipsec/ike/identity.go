package ike

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// ParseIdentity reads an identity as people write it: an address, a mail
// address (ID_RFC822_ADDR), "@#" and hexadecimal digits for opaque bytes
// (ID_KEY_ID), or else a domain name (ID_FQDN). It refuses the empty string and
// what is longer than 255 bytes.
func ParseIdentity(s string) (Identity, error) {
	if s == "" || len(s) > 255 {
		return Identity{}, fmt.Errorf("an identity has 1 to 255 characters, not %d", len(s))
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		if a = a.Unmap(); a.Is4() {
			return Identity{Type: IDIPv4Addr, Data: a.AsSlice()}, nil
		}
		return Identity{Type: IDIPv6Addr, Data: a.AsSlice()}, nil
	}
	if h, ok := strings.CutPrefix(s, "@#"); ok {
		b, err := hex.DecodeString(h)
		if err != nil || len(b) == 0 {
			return Identity{}, fmt.Errorf("%q has no hexadecimal digits after @#", s)
		}
		return Identity{Type: IDKeyID, Data: b}, nil
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Identity{}, fmt.Errorf("%q holds spaces or characters outside ASCII", s)
	}
	if name, host, ok := strings.Cut(s, "@"); ok && name != "" && host != "" {
		return Identity{Type: IDRFC822Addr, Data: []byte(s)}, nil
	}
	return Identity{Type: IDFQDN, Data: []byte(s)}, nil
}

// String writes the identity as ParseIdentity reads it; what it cannot read,
// as the type's number and hexadecimal digits.
func (i Identity) String() string {
	switch i.Type {
	case IDIPv4Addr, IDIPv6Addr:
		if a, ok := netip.AddrFromSlice(i.Data); ok && a.Is4() == (i.Type == IDIPv4Addr) {
			return a.String()
		}
	case IDFQDN, IDRFC822Addr:
		if !bytes.ContainsFunc(i.Data, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return string(i.Data)
		}
	case IDKeyID:
		return "@#" + hex.EncodeToString(i.Data)
	}
	return fmt.Sprintf("ID type %d %x", i.Type, i.Data)
}
