// Package server is the fixed end of the tunnel: it answers IKE and
// registrations over every encapsulation at one port, and lets its clients'
// streams out by ordinary sockets.
package server

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/server/egress"
	"github.com/godwit-net/godwit/transports"
)

// A Config says who the server is and who may come in. All fields without a
// default are required.
type Config struct {
	Logger *slog.Logger // nil discards

	// Network is where sockets come from.
	Network transports.Network
	// Listen is the one address and port of all encapsulations.
	Listen netip.AddrPort
	// Encapsulations to serve, best first: of esp, udp, tcp, websocket, http, and
	// transports.UDPOn for more ports. Empty: esp and those are left out.
	Encapsulations []transports.Name

	PrivateKey     ed25519.PrivateKey // what clients pin
	TLSCertificate tls.Certificate
	WebSocketPath  string // of websocket and http; begins with a slash; nobody can guess it

	// GetCertificate goes before TLSCertificate if it is not nil, for certificates
	// that change. TLSProtocols are what it needs offered besides HTTP (RFC 7301).
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	TLSProtocols   []string

	// Site is what visitors without a key see; an ordinary small page if it is nil.
	// RedirectHTTP sends those who come without TLS to the same address with it.
	Site         http.Handler
	RedirectHTTP bool

	// Stealth answers nobody who does not show with the first message to know the
	// server's public key and WebSocketPath; see package knock. It excludes Guests.
	Stealth bool

	// TrustedProxies are where reverse proxies may be that are believed when they say
	// for whom they come, by the PROXY protocol, Forwarded or X-Forwarded-For.
	TrustedProxies []netip.Prefix

	// Pool4 and Pool6 are the inner networks; their first addresses are the server's.
	Pool4, Pool6 netip.Prefix

	// DNS servers to hand out; none by default, as names are resolved here.
	DNS []netip.Addr

	// Lookup finds the user with a public key. An error refuses it; if it wraps an
	// ike.Reason, that is told to who holds the key.
	Lookup func(key ed25519.PublicKey) (*User, error)
	// Enrol finds the user that a proof lets in with a key that Lookup does not
	// know yet; Lookup knows it then. An error refuses it. May be nil.
	Enrol func(key ed25519.PublicKey, proof []byte) (*User, error)
	// Joined is told each time that a user has proven to hold its key. May be nil.
	Joined func(name string)

	// IKELifetime and ChildLifetime are the ages at which this end rekeys its
	// SAs; zero means two days and one day, negative never. Clients rekey much
	// earlier. One that sleeps cannot answer, and shall not lose its SAs for it.
	IKELifetime, ChildLifetime time.Duration

	// PostQuantum says whether the keys have to be safe from quantum computers;
	// they are where the other end can, by default.
	PostQuantum ike.PostQuantum

	// KeyLog gets the keys of all SAs, to decrypt captures with; nil in all
	// ordinary use.
	KeyLog ike.KeyLog

	// NoOffload has packets of the path's size cross the stack one by one, for
	// comparison and to look for faults.
	NoOffload bool

	// NoRecovery leaves packets that are lost on the way to the TCP inside, and
	// the rate of the path too. Both ends need recovery for either to have it.
	NoRecovery bool
	// Duplicate sends small datagrams of UDP inside twice, on encapsulations that
	// lose packets: what the network loses of them then seldom matters.
	Duplicate bool
	// ReplayBytes bounds what is kept of what was sent, to be sent again after a
	// move; 0 means link.DefaultFlightBytes.
	ReplayBytes int

	// Datagrams relays clients' UDP; nil has none.
	Datagrams interface {
		Serve(inner net.PacketConn) error
	}

	// Guests is for clients that are not godwit; nil lets none in.
	Guests *Guests

	// AllowPort tells whether a user may have a port of the server, whose streams
	// and datagrams are led to it. network is tcp or udp; an invalid address
	// stands for the server's inner addresses. Nil: there is no such service.
	AllowPort func(user, network string, at netip.AddrPort) bool

	// Egress connects clients' streams to their targets and resolves names.
	Egress func(ctx context.Context, network, address string) (net.Conn, error)
}

// Gateways are the server's own inner addresses: the first of each pool.
func (c *Config) Gateways() []netip.Addr {
	var inner []netip.Addr
	for _, pool := range []netip.Prefix{c.Pool4, c.Pool6} {
		if pool.IsValid() {
			inner = append(inner, pool.Masked().Addr().Next())
		}
	}
	return inner
}

// A User is one client that may come in.
type User struct {
	Name           string
	Inner4, Inner6 netip.Addr // fixed inner addresses out of the pools
	PSK            ike.Secret // of a guest that proves itself by a shared key
	Certificate    bool       // a guest proves itself by a certificate
	NTHash         ike.Secret // a guest logs in by a password: eap.NTHash of it
}

// Guests are IKEv2 clients that are not godwit, such as those built into
// phones. They route packets to the server, which lets them out.
type Guests struct {
	// Identity is what the server calls itself to them, as a rule its domain name.
	Identity ike.Identity
	// Listen is where they find the server, besides Config.Listen. Port 500
	// takes IKE alone.
	Listen []netip.AddrPort
	// Lookup finds the user that claims an identity. An error refuses it.
	Lookup func(id ike.Identity) (*User, error)
	// Login finds the user of a name that logs in by EAP; it takes Certificates.
	// nil lets none in that way.
	Login func(name string) (*User, error)
	// DNS servers to hand out; none means the server's own inner addresses.
	DNS []netip.Addr
	// Certificates and CertificateKey are for users that log in by a password,
	// and with Roots for users with certificates; see package ike.
	Certificates   [][]byte
	CertificateKey crypto.Signer
	Roots          []*x509.Certificate
	// GetCertificate goes before Certificates and CertificateKey if it is not nil and
	// gives one, for those that are renewed. It must not wait.
	GetCertificate func() *tls.Certificate
	// Router lets their packets out. New sets its Gateways, SendUDP and SendICMP.
	Router *egress.Router
}

// SOCKSPort is the port of the SOCKS5 service on the server's inner addresses.
const SOCKSPort = 1080
