package config

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"strings"
	"time"
)

// Errors that callers of this package test for.
var (
	// ErrExpired: the time to use a link for the first time is over.
	ErrExpired = errors.New("the link has expired")
	// ErrDamaged: a link was not copied whole.
	ErrDamaged = errors.New("the link is damaged")
	// ErrUsed: a link that is good for one use has been used.
	ErrUsed = errors.New("the link was used already")
	// ErrUnknownClient: no client has this key or name.
	ErrUnknownClient = errors.New("unknown client")
	// ErrNotSetUp: the folder holds no settings.
	ErrNotSetUp = errors.New("not set up")
)

// What links begin with; the number is the version of what follows.
const (
	linkPrefix = "godwit://v1/"
	oncePrefix = "godwit://v2/" // a link that is good for one use
	// The same two, of a server that takes UDP at more ports; those follow.
	portsPrefix     = "godwit://v3/"
	oncePortsPrefix = "godwit://v4/"
)

// prefix is what the link begins with.
func (l *Link) prefix() string {
	switch {
	case l.Once && len(l.UDPPorts) > 0:
		return oncePortsPrefix
	case len(l.UDPPorts) > 0:
		return portsPrefix
	case l.Once:
		return oncePrefix
	}
	return linkPrefix
}

// linkChecksum is the length of the checksum that ends a link, in bytes.
const linkChecksum = 8

// maxLink bounds a link that is parsed, in characters; the longest valid one
// has about 1,200.
const maxLink = 4096

// A Link is an invitation: all that a client needs. Whoever holds it is that
// client, or may become it, once.
type Link struct {
	Endpoint      string // host:port of the server
	ServerKey     ed25519.PublicKey
	CertHash      [32]byte // SHA-256 of the server's certificate in DER; zero: the Web PKI decides
	WebSocketPath string
	Name          string // what the server calls the client
	// Seed is of the client's private key; with Once it is of the invitation's,
	// which lets one client enrol a key of its own.
	Seed    [ed25519.SeedSize]byte
	Once    bool
	Expires time.Time // whole seconds
	// UDPPorts are where the server takes UDP besides the port of Endpoint, 8 at most.
	UDPPorts []uint16
}

// LogValue hides the private key.
func (l *Link) LogValue() slog.Value { return slog.StringValue("link for " + l.Name) }

// PrivateKey is the client's, or with Once the invitation's.
func (l *Link) PrivateKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(l.Seed[:]) }

// String gives the link as text. It holds the private key: it goes to the one
// who was invited and into no log. The format: docs/protocol.md, "Invitation
// link".
func (l *Link) String() string {
	b := make([]byte, 0, 256)
	b = append(b, l.ServerKey...)
	b = append(b, l.CertHash[:]...)
	b = append(b, l.Seed[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Expires.Unix()))
	for _, s := range []string{l.Endpoint, l.WebSocketPath, l.Name} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	if n := len(l.UDPPorts); n > 0 {
		b = append(b, byte(n))
		for _, p := range l.UDPPorts {
			b = binary.BigEndian.AppendUint16(b, p)
		}
	}
	prefix := l.prefix()
	sum := checksum(prefix, b)
	return prefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:]...))
}

// checksum tells a link that was not copied whole; it is no signature.
func checksum(prefix string, payload []byte) (sum [linkChecksum]byte) {
	h := sha256.New()
	h.Write([]byte(prefix))
	h.Write(payload)
	copy(sum[:], h.Sum(nil))
	return sum
}

// damaged is the error of a link whose text is not what String gave.
func damaged() error {
	return &Error{What: "this link is damaged", Do: "copy it whole, from godwit:// to its last character", Err: ErrDamaged}
}

// ParseLink reads a link. It gives an *Error that matches ErrDamaged for one
// that was not copied whole, and ErrExpired for one whose time is over at now.
func ParseLink(s string, now time.Time) (*Link, error) {
	s = strings.TrimSpace(s)
	prefix := s[:min(len(s), len(linkPrefix))]
	l := &Link{Once: prefix == oncePrefix || prefix == oncePortsPrefix}
	ports := prefix == portsPrefix || prefix == oncePortsPrefix
	if !l.Once && !ports && prefix != linkPrefix {
		if v, ok := strings.CutPrefix(s, "godwit://v"); ok && v != "" && v[0] >= '5' && v[0] <= '9' {
			return nil, &Error{What: "this link is of another version of godwit", Do: "use the same version on both sides"}
		}
		if strings.HasPrefix(s, "godwit:") {
			return nil, damaged()
		}
		return nil, &Error{What: "this is not a godwit link", Do: "give the godwit://… line that \"godwit server invite\" printed", Err: ErrDamaged}
	}
	if len(s) > maxLink {
		return nil, damaged()
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s[len(prefix):])
	if err != nil || len(b) < 32+32+32+8+linkChecksum {
		return nil, damaged()
	}
	b, end := b[:len(b)-linkChecksum], b[len(b)-linkChecksum:]
	if sum := checksum(prefix, b); subtle.ConstantTimeCompare(sum[:], end) != 1 {
		return nil, damaged()
	}

	l.ServerKey = append(l.ServerKey, b[:32]...)
	copy(l.CertHash[:], b[32:64])
	copy(l.Seed[:], b[64:96])
	seconds := binary.BigEndian.Uint64(b[96:104])
	b = b[104:]
	for _, to := range []*string{&l.Endpoint, &l.WebSocketPath, &l.Name} {
		if len(b) < 1 || len(b)-1 < int(b[0]) {
			return nil, damaged()
		}
		*to, b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	if ports {
		if len(b) < 1 || b[0] == 0 || b[0] > maxUDPPorts || len(b) < 1+2*int(b[0]) {
			return nil, damaged()
		}
		n := int(b[0])
		for b = b[1:]; n > 0; n, b = n-1, b[2:] {
			l.UDPPorts = append(l.UDPPorts, binary.BigEndian.Uint16(b))
		}
		if CheckEncapsulations(WithUDPPorts(l.UDPPorts)) != nil {
			return nil, damaged()
		}
	}
	// The checksum was right, so these are mistakes of the one who made it.
	if len(b) != 0 || seconds > math.MaxUint32 || CheckEndpoint(l.Endpoint) != nil || checkPath(l.WebSocketPath) != nil || CheckName(l.Name) != nil {
		return nil, damaged()
	}
	l.Expires = time.Unix(int64(seconds), 0).UTC()
	if !now.Before(l.Expires) {
		return nil, &Error{What: "this link expired on " + moment(l.Expires) + ", and this machine's clock says " + moment(now), Do: "ask the owner of the server for a new one (godwit server invite), or set the clock", Err: ErrExpired}
	}
	return l, nil
}

func moment(t time.Time) string { return t.UTC().Format("2 January 2006 15:04 MST") }
