package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/coder/websocket"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
	"github.com/godwit-net/godwit/transports/web"
)

// Options of the client's end.
type Options = web.Options

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
// of o.First above the MTU are left out. Errors may be a *web.CertError or a
// *web.StatusError.
func (t *transport) Dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	c, err := t.dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("dial %s over websocket: %w", o.Remote, err)
	}
	return c, nil
}

func (t *transport) dial(ctx context.Context, o transports.Opening) (transports.Carrier, error) {
	conn, raw, d, err := t.opts.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	c := stream.New(transports.WebSocket, d, o.Handler)
	u := &upgrade{ctx: ctx, conn: conn, raw: raw}
	header := http.Header{"User-Agent": {t.opts.Fingerprint.UserAgent()}}
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
			return nil, web.NewStatusError(resp, d.Authority)
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
