package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
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

// A StatusError says that the upgrade was answered with something else than
// 101: a server that does not know the path, or a captive portal.
type StatusError struct {
	Code     int    // HTTP status
	Location string // where a redirect leads
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
	conn, err := o.Network.DialTCP(ctx, o.Local, o.Remote)
	if err != nil {
		return nil, err
	}
	stream.Tune(conn)
	raw := conn
	d := stream.Describe(conn)
	d.Authority, d.Path = t.authority(o.Remote), t.opts.Path
	if t.opts.TLS {
		secure := tls.Client(conn, t.tlsConfig(d.Authority))
		err := stream.Within(ctx, raw, func() error { return secure.HandshakeContext(ctx) })
		if err != nil {
			return nil, certError(err)
		}
		d.CertHash = sha256.Sum256(secure.ConnectionState().PeerCertificates[0].Raw)
		conn = secure
	}

	c := stream.New(transports.WebSocket, d, o.Handler)
	u := &upgrade{ctx: ctx, conn: conn, raw: raw}
	header := http.Header{"User-Agent": {userAgent}}
	if o.First != nil {
		inHeader, behind := pack(o.First(c.Describe()))
		if len(inHeader) > 0 {
			header.Set("Cookie", cookie+"="+encodeFlight(inHeader))
		}
		u.behind = behind
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
			return nil, &StatusError{Code: resp.StatusCode, Location: resp.Header.Get("Location")}
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
	return c, nil
}

// userAgent is a browser's: the program's own name would be a mark.
const userAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

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
	} else if remote.Addr().Is6() {
		host = "[" + remote.Addr().WithZone("").String() + "]"
	}
	if remote.Port() == port {
		return host
	}
	return fmt.Sprintf("%s:%d", host, remote.Port())
}

func (t *transport) tlsConfig(authority string) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		ServerName: t.opts.ServerName,
		RootCAs:    t.opts.RootCAs,
	}
	if c.ServerName == "" {
		c.ServerName = (&url.URL{Host: authority}).Hostname()
	}
	if t.opts.CertHash != [32]byte{} {
		// The pin takes the place of the usual verification.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the server showed no certificate")
			}
			seen := sha256.Sum256(s.PeerCertificates[0].Raw)
			if subtle.ConstantTimeCompare(seen[:], t.opts.CertHash[:]) != 1 {
				return &CertError{Seen: seen}
			}
			return nil
		}
	}
	return c
}

// certError makes the Web PKI's verdict a *CertError.
func certError(err error) error {
	var v *tls.CertificateVerificationError
	if errors.As(err, &v) && len(v.UnverifiedCertificates) > 0 {
		return &CertError{Seen: sha256.Sum256(v.UnverifiedCertificates[0].Raw), Err: err}
	}
	return err
}

// pack frames packets: those that fit a header, and those that go behind it.
func pack(ps []transports.Packet) (header, behind []byte) {
	for _, p := range ps {
		if behind == nil && len(header)+stream.FrameSize(p) <= maxFlight {
			header = stream.AppendFrame(header, p)
		} else {
			behind = stream.AppendFrame(behind, p)
		}
	}
	return header, behind
}

// An upgrade is an http.RoundTripper for one request on a given connection.
type upgrade struct {
	ctx       context.Context
	conn, raw net.Conn
	behind    []byte // frames to send without waiting for the response
	body      *coalescer
}

func (u *upgrade) RoundTrip(req *http.Request) (*http.Response, error) {
	var out bytes.Buffer
	if err := req.Write(&out); err != nil {
		return nil, err
	}
	// A message above the server's limit would end the connection.
	for b := u.behind; len(b) > 0; {
		message, rest := cut(b, maxMessage)
		if err := appendMessage(&out, message); err != nil {
			return nil, err
		}
		b = rest
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

// cut divides frames after the last one that ends within limit bytes.
func cut(b []byte, limit int) (first, rest []byte) {
	n := 0
	for n < len(b) {
		size := int(b[n])<<8 | int(b[n+1])
		if n+size > limit {
			break
		}
		n += size
	}
	return b[:n], b[n:]
}

// appendMessage writes a binary message as a client does, RFC 6455, Section
// 5.2. The library can't before the response is there.
func appendMessage(out *bytes.Buffer, payload []byte) error {
	const final, binaryOp, masked = 0x80, 0x02, 0x80
	var key [4]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	out.WriteByte(final | binaryOp)
	switch n := len(payload); {
	case n < 126:
		out.WriteByte(masked | byte(n))
	case n < 65536:
		out.Write([]byte{masked | 126, byte(n >> 8), byte(n)})
	default:
		out.Write([]byte{masked | 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	out.Write(key[:])
	for i, b := range payload {
		out.WriteByte(b ^ key[i%4])
	}
	return nil
}
