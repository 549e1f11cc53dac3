package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/proxy"

	"github.com/godwit-net/godwit/transports/stream"
)

const (
	// maxAnswer bounds what a proxy may say before it connects, in bytes.
	maxAnswer = 64 << 10
	// tries is how often a proxy may ask for authentication in one dial: what
	// was learnt earlier may be too old, and a nonce may end at once.
	tries = 4
)

// userAgent is a browser's: proxies have rules about others.
const userAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

// httpConnect has an HTTP proxy connect to target, on the same connection as
// long as the proxy keeps it open.
func (n *network) httpConnect(ctx context.Context, target string) (net.Conn, error) {
	var conn net.Conn
	var br *bufio.Reader
	var limited *io.LimitedReader
	var learned *challenge // in this dial
	for range tries {
		if conn == nil {
			var err error
			if conn, err = n.dialProxy(ctx); err != nil {
				return nil, err
			}
			stream.Tune(conn)
			limited = &io.LimitedReader{R: conn}
			br = bufio.NewReader(limited)
		}
		asked, header := n.upstream.auth.header(http.MethodConnect, target)
		var resp *http.Response
		keep := false
		limited.N = maxAnswer
		err := stream.Within(ctx, stream.Innermost(conn), func() (err error) {
			if _, err = io.WriteString(conn, connectRequest(target, header)); err != nil {
				return err
			}
			// The request tells the reader that 2xx has no body.
			if resp, err = http.ReadResponse(br, &http.Request{Method: http.MethodConnect}); err != nil {
				return err
			}
			if resp.StatusCode/100 != 2 {
				_, drained := io.Copy(io.Discard, resp.Body)
				keep = drained == nil && limited.N > 0 && !resp.Close
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("ask for %s: %w", target, err)
		}
		switch {
		case resp.StatusCode/100 == 2:
			limited.N = 1<<63 - 1
			return &buffered{conn, br}, nil
		case resp.StatusCode != http.StatusProxyAuthRequired:
			conn.Close()
			return nil, statusError(resp)
		}
		if !keep {
			conn.Close()
			conn = nil
		}
		c, err := n.upstream.auth.challenged(resp.Header.Values("Proxy-Authenticate"))
		// An answer to a challenge of this dial was wrong, not old, unless the
		// proxy says so: "stale", RFC 7616, Section 3.3.
		if err == nil && learned != nil && asked == learned && !c.stale {
			err = fmt.Errorf("%w: HTTP status %s", ErrCredentials, resp.Status)
		}
		if err != nil {
			if conn != nil {
				conn.Close()
			}
			return nil, err
		}
		learned = c
	}
	if conn != nil {
		conn.Close()
	}
	return nil, fmt.Errorf("%w: it asks for them again and again", ErrCredentials)
}

func connectRequest(target, authorization string) string {
	r := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\nUser-Agent: " + userAgent + "\r\n"
	if authorization != "" {
		r += "Proxy-Authorization: " + authorization + "\r\n"
	}
	return r + "\r\n"
}

func statusError(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUnavailableForLegalReasons:
		return fmt.Errorf("%w: HTTP status %d", ErrForbidden, resp.StatusCode)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("the proxy cannot reach the server: HTTP status %d", resp.StatusCode)
	}
	return fmt.Errorf("the proxy refuses: HTTP status %d", resp.StatusCode)
}

// buffered is a connection of which a reader may have read ahead.
type buffered struct {
	net.Conn
	br *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) {
	if b.br.Buffered() > 0 {
		return b.br.Read(p)
	}
	return b.Conn.Read(p)
}

// NetConn gives the connection to the proxy.
func (b *buffered) NetConn() net.Conn { return b.Conn }

// socks has a SOCKS5 proxy connect to target.
func (n *network) socks(ctx context.Context, target string) (net.Conn, error) {
	var auth *proxy.Auth
	if n.upstream.user != "" {
		auth = &proxy.Auth{User: n.upstream.user, Password: n.upstream.pass}
	}
	d, err := proxy.SOCKS5("tcp", n.upstream.host, auth, forward{n})
	if err != nil {
		return nil, err
	}
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", target)
	if err != nil {
		// The library's errors are texts; what they say is the proxy's refusal.
		if errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("SOCKS5: %w", err)
	}
	return c, nil
}

// forward connects to the proxy for the SOCKS5 library, whatever it asks for.
type forward struct{ n *network }

func (f forward) Dial(network, address string) (net.Conn, error) {
	return f.DialContext(context.Background(), network, address)
}

func (f forward) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	c, err := f.n.dialProxy(ctx)
	if err == nil {
		stream.Tune(c)
	}
	return c, err
}
