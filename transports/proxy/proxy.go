// Package proxy leads stream encapsulations through an upstream proxy, as
// offices have them: HTTP CONNECT (RFC 9110, Section 9.3.6) without
// authentication or with Basic (RFC 7617) or Digest (RFC 7616), or SOCKS5 (RFC
// 1928) without authentication or with user and password (RFC 1929).
//
// # Limitations
//
// Negotiate and NTLM are not implemented, nor are proxy auto-configuration
// files. Of SOCKS only CONNECT is used, so UDP goes past the proxy.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/godwit-net/godwit/transports"
)

// Errors that callers test for.
var (
	// ErrUnreachable: no connection to the proxy itself.
	ErrUnreachable = errors.New("the proxy cannot be reached")
	// ErrCredentials: the proxy wants a user and a password, or others than
	// these, or in a way that is not implemented.
	ErrCredentials = errors.New("the proxy does not accept the user and the password")
	// ErrForbidden: the proxy does not let through what was asked for.
	ErrForbidden = errors.New("the proxy does not allow it")
)

// An Upstream is a proxy and what is known of it. It may be used by several
// transports at once, which then learn from each other how it wants to be asked.
type Upstream struct {
	scheme     string // http, https or socks5
	host       string // with port
	user, pass string
	auth       authenticator
}

// ports are the schemes that exist and their ports when none is given. socks5h
// is curl's word for having the proxy resolve names, which is done always.
var ports = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// Parse reads [http|https|socks5://][USER:PASSWORD@]HOST[:PORT]; without a
// scheme it is http. Errors do not repeat the text, as it may hold a password.
func Parse(s string) (*Upstream, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("not the URL of a proxy")
	}
	scheme := strings.ToLower(u.Scheme)
	port, ok := ports[scheme]
	if !ok {
		return nil, fmt.Errorf("a proxy's URL begins with http, https or socks5, not %q", scheme)
	}
	if u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("the URL of a proxy is SCHEME://HOST:PORT and nothing more")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	up := &Upstream{scheme: strings.TrimSuffix(scheme, "h"), host: net.JoinHostPort(u.Hostname(), port)}
	up.user = u.User.Username()
	up.pass, _ = u.User.Password()
	if up.scheme == "socks5" && (len(up.user) > 255 || len(up.pass) > 255) {
		return nil, errors.New("SOCKS5 takes a user and a password of at most 255 bytes each")
	}
	up.auth = authenticator{user: up.user, pass: up.pass}
	return up, nil
}

// FromEnvironment gives the proxy that HTTPS_PROXY, ALL_PROXY and NO_PROXY, in
// capitals or not, name for a server, HOST:PORT; nil if there is none.
func FromEnvironment(getenv func(string) string, server string) (*Upstream, error) {
	get := func(names ...string) string {
		for _, n := range names {
			if v := getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	text := get("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
	if text == "" {
		return nil, nil
	}
	// The library knows the forms that NO_PROXY takes; of the proxy it sees a
	// stand-in, as it may be of a kind that it does not parse.
	c := httpproxy.Config{HTTPSProxy: "http://stand-in", NoProxy: get("NO_PROXY", "no_proxy")}
	at, err := c.ProxyFunc()(&url.URL{Scheme: "https", Host: server})
	if err != nil || at == nil {
		return nil, err
	}
	return Parse(text)
}

// Host is the proxy's HOST:PORT.
func (u *Upstream) Host() string { return u.host }

// String gives the URL without user and password.
func (u *Upstream) String() string { return u.scheme + "://" + u.host }

// LogValue hides user and password.
func (u *Upstream) LogValue() slog.Value { return slog.StringValue(u.String()) }

// Format hides user and password from every verb.
func (u *Upstream) Format(f fmt.State, _ rune) { fmt.Fprint(f, u.String()) }

// Options are Wrap's. The zero value of a field means the default.
type Options struct {
	// Target is what the proxy is asked to connect to, HOST:PORT; by default the
	// address and port of the opening. With a name the proxy resolves it, and
	// no name has to be resolved where only the proxy can.
	Target string
	// Resolve finds the proxy's addresses; the system's resolver by default.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Wrap gives t a network in which TCP connections go through the proxy. It
// implements transports.Indirect.
func Wrap(t transports.Transport, u *Upstream, o Options) transports.Transport {
	if o.Resolve == nil {
		o.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &wrapped{t, u, o}
}

type wrapped struct {
	transports.Transport
	upstream *Upstream
	opts     Options
}

// Indirect implements transports.Indirect.
func (w *wrapped) Indirect() string { return w.upstream.host }

// Dial implements transports.Transport. The error matches ErrUnreachable,
// ErrCredentials or ErrForbidden where the proxy is the cause.
func (w *wrapped) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	o.Network = &network{o.Network, w.upstream, w.opts}
	return w.Transport.Dial(ctx, o)
}

type network struct {
	transports.Network
	upstream *Upstream
	opts     Options
}

// DialTCP gives a connection through the proxy. local is left to the system: it
// is the address towards the server, and the proxy may be elsewhere.
func (n *network) DialTCP(ctx context.Context, _ netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	target := n.opts.Target
	if target == "" {
		target = remote.String()
	}
	c, err := n.connect(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s: %w", n.upstream, err)
	}
	return &Conn{Conn: c, remote: remote, proxy: n.upstream.host}, nil
}

func (n *network) connect(ctx context.Context, target string) (net.Conn, error) {
	if n.upstream.scheme == "socks5" {
		return n.socks(ctx, target)
	}
	return n.httpConnect(ctx, target)
}

// dialProxy connects to the proxy itself.
func (n *network) dialProxy(ctx context.Context) (net.Conn, error) {
	host, port, err := net.SplitHostPort(n.upstream.host)
	if err != nil {
		return nil, err
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, a)
	} else if addrs, err = n.opts.Resolve(ctx, host); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	err = errors.New("its name has no address")
	for _, a := range addrs {
		var c net.Conn
		if c, err = n.Network.DialTCP(ctx, netip.Addr{}, netip.AddrPortFrom(a.Unmap(), uint16(number))); err != nil {
			continue
		}
		if n.upstream.scheme != "https" {
			return c, nil
		}
		secure := tls.Client(c, &tls.Config{ServerName: host, NextProtos: []string{"http/1.1"}})
		if err = secure.HandshakeContext(ctx); err == nil {
			return secure, nil
		}
		c.Close()
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// A Conn is a connection to a server through a proxy.
type Conn struct {
	net.Conn
	remote netip.AddrPort
	proxy  string
}

// RemoteAddr is the server's, as far as it is known here.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// Proxy is the HOST:PORT of the proxy.
func (c *Conn) Proxy() string { return c.proxy }

// NetConn gives the connection to the proxy.
func (c *Conn) NetConn() net.Conn { return c.Conn }
