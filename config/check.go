package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

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

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }

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

// maxUDPPorts bounds the ports of UDP besides the shared one: each costs the client
// packets at every move.
const maxUDPPorts = 8

// udpOn names UDP at a port besides the shared one.
func udpOn(port uint16) string { return "udp-" + strconv.Itoa(int(port)) }

// udpPort is the port in a name that udpOn gives, and 0 in all others.
func udpPort(name string) uint16 {
	n, err := strconv.ParseUint(strings.TrimPrefix(name, "udp-"), 10, 16)
	if err != nil || name != udpOn(uint16(n)) {
		return 0
	}
	return uint16(n)
}

// udpPorts gives the ports of all names that have one.
func udpPorts(names []string) (ports []uint16) {
	for _, n := range names {
		if p := udpPort(n); p != 0 {
			ports = append(ports, p)
		}
	}
	return ports
}

// WithUDPPorts gives the default encapsulations, and UDP at more ports of the server.
func WithUDPPorts(ports []uint16) []string {
	names := DefaultEncapsulations()
	more := make([]string, 0, len(ports))
	for _, p := range ports {
		more = append(more, udpOn(p))
	}
	return slices.Insert(names, slices.Index(names, "udp")+1, more...)
}

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
		if !slices.Contains(known, n) && udpPort(n) == 0 {
			do := "use one or more of " + strings.Join(known, ", ") + ", or udp-4500 for another port"
			if s := Suggest(n, known); s != "" {
				do = "did you mean " + s + "?"
			}
			return &Error{What: strconv.Quote(n) + " is not an encapsulation", Do: do}
		}
		if slices.Contains(names[:i], n) {
			return &Error{What: n + " is named twice", Do: "name it once"}
		}
	}
	if n := len(udpPorts(names)); n > maxUDPPorts {
		return &Error{What: fmt.Sprintf("%d more ports of UDP are too many", n), Do: fmt.Sprintf("name %d at most", maxUDPPorts)}
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
