package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/coder/websocket"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
)

// Options of the client's end. The zero value of a field means the default.
type Options struct {
	TLS bool
	// ServerName is for TLS; the host of Host by default.
	ServerName string
	// Host is the Host header; by default ServerName, or else the server's
	// address, with its port where that is not the scheme's own.
	Host string
	// Path begins with a slash; "/" by default.
	Path string
	// CertHash is the SHA-256 of the server's certificate in DER. When it is
	// zero the Web PKI decides, with the names of ServerName.
	CertHash [32]byte
	// Fingerprint is whose ClientHello and User-Agent are sent; Go by default.
	Fingerprint Fingerprint
	// RootCAs are for the Web PKI; nil means the system's.
	RootCAs *x509.CertPool
}

// A CertError says that the server showed a certificate that is not trusted.
type CertError struct {
	Seen [32]byte // SHA-256 of the certificate shown, in DER
	Err  error    // what the Web PKI has against it; nil when it is not the pinned one
}

// Error names the certificate.
func (e *CertError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("certificate with SHA-256 %x: %v", e.Seen, e.Err)
	}
	return fmt.Sprintf("certificate with SHA-256 %x is not the pinned one", e.Seen)
}

// Unwrap gives Err.
func (e *CertError) Unwrap() error { return e.Err }

// Interception implements transports.Interception; a certificate names no page.
func (e *CertError) Interception() string { return "" }

// A StatusError says that the upgrade was answered with something else than
// 101: a server that does not know the path, or a captive portal.
type StatusError struct {
	Code     int    // HTTP status
	Location string // where a redirect leads, as far as that is a web page; at most 512 bytes
}

// Interception implements transports.Interception.
func (e *StatusError) Interception() string { return e.Location }

// maxLocation bounds what of a redirect is kept and shown, in bytes.
const maxLocation = 512

// location gives the page that a redirect leads to; empty if it is none. It
// comes from whoever sits on the way, and will be shown on a terminal: the URL
// is written anew from its parts, and names and passwords are left out.
func location(header, authority string) string {
	if header == "" || len(header) > maxLocation {
		return ""
	}
	u, err := url.Parse(header)
	if err != nil {
		return ""
	}
	u = (&url.URL{Scheme: "http", Host: authority}).ResolveReference(u)
	u.User = nil
	s := u.String()
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || len(s) > maxLocation {
		return ""
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return s
}

// Error names the status.
func (e *StatusError) Error() string {
	if e.Location != "" {
		return fmt.Sprintf("HTTP status %d, redirect to %s", e.Code, e.Location)
	}
	return fmt.Sprintf("HTTP status %d", e.Code)
}

// New gives the client's transport.
func New(o Options) transports.Transport {
	if o.Path == "" {
		o.Path = "/"
	}
	return &transport{o}
}

type transport struct{ opts Options }

func (t *transport) Name() transports.Name { return transports.WebSocket }

// Dial connects, and returns when the server has answered the upgrade. Packets
// of o.First above the MTU are left out. Errors may be a *CertError or a
// *StatusError.
func (t *transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	c, err := t.dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("dial %s over websocket: %w", o.Remote, err)
	}
	return c, nil
}

func (t *transport) dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	var conn net.Conn
	var err error
	if t.opts.TLS {
		// The ClientHello may ride in the SYN.
		conn, _, err = transports.DialEarly(ctx, o.Network, o.Local, o.Remote)
	} else {
		conn, err = o.Network.DialTCP(ctx, o.Local, o.Remote)
	}
	if err != nil {
		return nil, err
	}
	stream.Tune(conn)
	raw := conn
	d := stream.Describe(conn)
	d.Authority, d.Path = t.authority(o.Remote), t.opts.Path
	if t.opts.TLS {
		err := stream.Within(ctx, raw, func() (err error) {
			conn, d.CertHash, err = t.secure(ctx, conn, d.Authority)
			return err
		})
		if err != nil {
			return nil, certError(err)
		}
	}

	c := stream.New(transports.WebSocket, d, o.Handler)
	u := &upgrade{ctx: ctx, conn: conn, raw: raw}
	header := http.Header{"User-Agent": {t.opts.Fingerprint.userAgent()}}
	var behind []transports.Packet
	if o.First != nil {
		var inHeader []byte
		inHeader, behind = pack(o.First(c.Describe()))
		if len(inHeader) > 0 {
			header.Set("Cookie", cookie+"="+encodeFlight(inHeader))
		}
	}
	// Without TLS in the URL: the connection is there, only the request's
	// form matters, and that is the same.
	target := url.URL{Scheme: "ws", Host: d.Authority, Path: t.opts.Path}
	ws, resp, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport: u,
			// A redirect is evidence (of a captive portal), not an order.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader: header,
		Host:       d.Authority,
	})
	if err != nil {
		raw.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, &StatusError{Code: resp.StatusCode, Location: location(resp.Header.Get("Location"), d.Authority)}
		}
		return nil, err
	}
	m := &messages{ws: ws, raw: raw, body: u.body, deliver: c.Deliver}
	for _, k := range resp.Cookies() {
		if k.Name != cookie {
			continue
		}
		if m.early, err = decodeFlight(k.Value); err != nil {
			m.Close()
			return nil, err
		}
	}
	go c.Run(m)
	if len(behind) > 0 {
		// What does not fit waits for the 101: an intermediary that has not yet
		// agreed to the upgrade would take frames for a second request.
		// Packets that are too big are left out; other errors are the carrier's.
		err := stream.Within(ctx, raw, func() error {
			if err := c.Send(behind); err != nil && !errors.Is(err, transports.ErrTooBig) {
				return err
			}
			return nil
		})
		if err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

func (t *transport) authority(remote netip.AddrPort) string {
	if t.opts.Host != "" {
		return t.opts.Host
	}
	port := uint16(80)
	if t.opts.TLS {
		port = 443
	}
	host := remote.Addr().String()
	if t.opts.ServerName != "" {
		host = t.opts.ServerName
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.WithZone("").String()
		if a.Is6() {
			host = "[" + host + "]"
		}
	}
	if remote.Port() == port {
		return host
	}
	return fmt.Sprintf("%s:%d", host, remote.Port())
}

// pack frames the packets that fit a header, and gives those that do not.
func pack(ps []transports.Packet) (header []byte, behind []transports.Packet) {
	for i, p := range ps {
		if len(header)+stream.FrameSize(p) > maxFlight {
			return header, ps[i:]
		}
		header = stream.AppendFrame(header, p)
	}
	return header, nil
}

// An upgrade is an http.RoundTripper for one request on a given connection.
type upgrade struct {
	ctx       context.Context
	conn, raw net.Conn
	body      *coalescer
}

func (u *upgrade) RoundTrip(req *http.Request) (*http.Response, error) {
	var out bytes.Buffer
	if err := req.Write(&out); err != nil {
		return nil, err
	}
	br := bufio.NewReader(u.conn)
	var resp *http.Response
	err := stream.Within(u.ctx, u.raw, func() (err error) {
		if _, err = u.conn.Write(out.Bytes()); err != nil {
			return err
		}
		limited := &io.LimitedReader{R: u.conn, N: 64 << 10}
		br.Reset(limited)
		if resp, err = http.ReadResponse(br, req); err != nil {
			return err
		}
		limited.N = 1<<63 - 1 // the limit was the header's
		return nil
	})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		u.body = &coalescer{Reader: br, conn: u.conn}
		resp.Body = u.body
	} else {
		// Nobody is to wait for what a portal has to say.
		resp.Body.Close()
		resp.Body = http.NoBody
		u.raw.Close()
	}
	return resp, nil
}
