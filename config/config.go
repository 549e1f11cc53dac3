// Package config turns the files of a server's or a client's folder into
// checked values, and back.
//
// Parsing is strict: an unknown key is an error, and each error names its file
// and its key. Files are replaced whole (written beside, synced, renamed), so a
// full disk or a killed process never leaves half a file behind.
//
// # Limitations
//
// On Windows the permissions of key files are left to the folder they lie in.
package config

import (
	"crypto/ed25519"
	"log/slog"
	"net/netip"
	"time"
)

// An Error is something that a person can mend. It reads "what, where: what to
// do" in one line.
type Error struct {
	What  string // what is wrong
	Where string // the file and the key, or the argument; may be empty
	Do    string // what to do about it; may be empty
	Err   error  // the cause, for errors.Is; may be nil
}

// Error gives "what, where: what to do".
func (e *Error) Error() string {
	s := e.What
	if e.Where != "" {
		s += ", " + e.Where
	}
	if e.Do != "" {
		s += ": " + e.Do
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Defaults of optional keys. The pools are private ranges (RFC 1918, RFC 4193)
// picked at random, so that they seldom clash with a network that the server
// can reach.
var (
	DefaultPool4  = netip.MustParsePrefix("10.143.0.0/16")
	DefaultPool6  = netip.MustParsePrefix("fd2c:9f61:7e0b::/64")
	DefaultListen = netip.MustParseAddrPort("127.0.0.1:1080") // of a client's SOCKS5 and HTTP proxy
)

// DefaultExpiry is how long a link may be used for the first time.
const DefaultExpiry = 7 * 24 * time.Hour

// replayMemory is the ReplayMemory where none is named, in MiB.
const replayMemory = 16

// DefaultEncapsulations are the encapsulations in use when none are named, in
// order of preference.
func DefaultEncapsulations() []string { return []string{"udp", "tcp", "websocket", "http"} }

// A Server is what server.toml says.
type Server struct {
	// Endpoint is host:port as clients dial it. It is required.
	Endpoint string
	// Listen is the one address and port of all encapsulations; [::] and the
	// endpoint's port by default.
	Listen netip.AddrPort
	// Allow opens ranges for egress that are denied by default, such as
	// loopback and private networks.
	Allow []netip.Prefix
	// AllowForward are the ports that clients may have of this server; none by
	// default.
	AllowForward []PortRule
	// Pool4 and Pool6 hold the inner addresses. The first of each is the
	// server's own.
	Pool4, Pool6 netip.Prefix
	// Encapsulations that are served.
	Encapsulations []string
	// WebSocketPath is the secret request path of websocket and http.
	// It is required and begins with a slash.
	WebSocketPath string
	// PostQuantum is prefer (the default), require or never: whether keys have
	// to be safe from quantum computers.
	PostQuantum string
	// Web is the port as visitors without a key see it.
	Web Web
	// Metrics is where Prometheus may ask for numbers by HTTP; not valid, the
	// default: nowhere.
	Metrics netip.AddrPort
	// NoOffload, the key offload turned round, keeps packets from crossing the
	// stack and the system many at once.
	NoOffload bool
	// NoRecovery, the key recovery turned round, leaves packets that are lost on
	// the way to the TCP inside.
	NoRecovery bool
	// Duplicate, the key duplicate, sends small datagrams of UDP inside twice, on encapsulations that
	// lose packets: what the network loses of them then seldom matters.
	Duplicate bool
	// ReplayMemory is how much of what was sent is kept for each peer, to be sent
	// again after a move, at most, in MiB, from 1 to 1024; 16 by default.
	ReplayMemory int
	// LogLevel is info by default.
	LogLevel slog.Level
	// IKEv2 is what the server is to IKEv2 clients that are not godwit; nil
	// lets none in.
	IKEv2 *IKEv2
}

// A Client is what client.toml says.
type Client struct {
	// Gateway stands in place of Name, Server, ServerKey, CertHash and
	// WebSocketPath for a gateway that need not be godwit; nil for a godwit
	// server that was joined by a link.
	Gateway *Gateway
	// Name is what the server calls this client. It is required.
	Name string
	// Server is host:port. It is required.
	Server string
	// ServerKey is pinned. It is required.
	ServerKey ed25519.PublicKey
	// CertHash is the SHA-256 of the server's certificate in DER, pinned. It
	// is required, unless Verify is webpki.
	CertHash [32]byte
	// WebSocketPath is the secret request path. It is required.
	WebSocketPath string
	// Enrolment has a server that does not know this client's key yet learn it; nil
	// if the key came with the link. It is of no use without that key.
	Enrolment []byte
	// Listen is where the SOCKS5 and HTTP proxy listens, DefaultListen by
	// default.
	Listen netip.AddrPort
	// Encapsulations in order of preference.
	Encapsulations []string
	// NoTLS, the key tls turned round, has websocket and http do without TLS.
	NoTLS bool
	// NoPlainHTTP, the key http_without_tls turned round, keeps http from doing without
	// TLS where TLS does not pass.
	NoPlainHTTP bool
	// ServerName is for TLS, the host of Server if it is empty.
	ServerName string
	// HTTPHost is the Host header, ServerName if it is empty.
	HTTPHost string
	// Verify is pin (the default) or webpki: what the server's certificate has
	// to be.
	Verify string
	// Fingerprint is chrome (the default), firefox or go: whose ClientHello is
	// sent.
	Fingerprint string
	// Proxy is the URL of the upstream proxy for TCP, or environment (the
	// default), or none. It may hold a password: it goes into no log.
	Proxy string
	// EarlyData is known (the default), always or never: for which destinations
	// a stream's first bytes leave before the destination has answered.
	EarlyData string
	// PostQuantum is prefer (the default), require or never: whether keys have
	// to be safe from quantum computers.
	PostQuantum string
	// Decides is server (the default) or client: whose order of preference the
	// encapsulation is chosen by.
	Decides string
	// Standby keeps another encapsulation ready beside the one in use.
	Standby bool
	// Forward are ports of this machine that lead to targets, each written as
	// "tcp 127.0.0.1:2222 git.example.org:22".
	Forward []string
	// Tun leads the whole machine through the tunnel.
	Tun Tun
	// RemoteForward are ports of the server that lead to targets of this machine,
	// each written as "tcp [::]:8080 127.0.0.1:3000".
	RemoteForward []string
	// Bypass are names, domains such as *.intranet.example.org, addresses and
	// ranges that browsers with the automatic configuration reach without the proxy.
	Bypass []string
	// NoOffload, the key offload turned round, keeps packets from crossing the
	// stack and the system many at once.
	NoOffload bool
	// NoRecovery, the key recovery turned round, leaves packets that are lost on
	// the way to the TCP inside.
	NoRecovery bool
	// Duplicate, the key duplicate, sends small datagrams of UDP inside twice, on encapsulations that
	// lose packets: what the network loses of them then seldom matters.
	Duplicate bool
	// ReplayMemory is how much of what was sent is kept for each peer, to be sent
	// again after a move, at most, in MiB, from 1 to 1024; 16 by default.
	ReplayMemory int
	// LogLevel is info by default.
	LogLevel slog.Level
}

// A ClientRecord is what a server keeps of one client, clients/NAME.toml: of a
// godwit client that was invited, or of a user of another IKEv2 client.
type ClientRecord struct {
	Name      string            // the file's name without .toml
	PublicKey ed25519.PublicKey // of a godwit client; nil until a link for one use was used
	// Invitation is the public key of a link that is good for one use, which it
	// remembers after that; nil for other links.
	Invitation ed25519.PublicKey
	Identity   string // what a user's IKEv2 client calls itself; empty for godwit clients
	PSK        string // a user's shared key; empty if there is none
	Certified  bool   // a user proves itself by a certificate that bears its identity
	NTHash     []byte // of the password that a user logs in with by EAP, 16 bytes; nil if there is none
	Inner4     netip.Addr
	Inner6     netip.Addr
	Created    time.Time
	Expires    time.Time // the link must be used before it; without meaning once Joined
	Joined     bool      // the client has connected once
}
