package http

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/web"
)

// TestTicket has the bytes of a cookie, and what is none.
func TestTicket(t *testing.T) {
	tk := ticket{form: formDown, beside: true, number: 0x01020304, session: [16]byte([]byte("0123456789abcdef")), header: [8]byte([]byte("ABCDEFGH"))}
	const want = "AQQAAgECAwQwMTIzNDU2Nzg5YWJjZGVmQUJDREVGR0g"
	if got := tk.encode(); got != want {
		t.Errorf("encoded as %s", got)
	}
	if got, ok := decodeTicket(want); !ok || got != tk {
		t.Errorf("decoded as %+v, %v", got, ok)
	}
	for name, s := range map[string]string{
		"empty": "", "short": want[:42], "long": want + "A", "padded": want + "=", "another version": "Ag" + want[2:],
		"no form": "AQAA" + want[4:], "an unknown form": "AQYA" + want[4:], "no base64": "!" + want[1:], "loose bits": want[:42] + "h",
	} {
		if tk, ok := decodeTicket(s); ok {
			t.Errorf("%s: taken as %+v", name, tk)
		}
	}
}

// TestVisitors: whoever does not have both path and ticket gets what the site has,
// and costs nothing; one whose session is over is told.
func TestVisitors(t *testing.T) {
	good := "session=" + ticket{form: formOpen}.encode()
	for name, tt := range map[string]struct {
		method, path, cookie string
		site                 bool
		body                 string // of the answer
	}{
		"GET":             {http.MethodGet, path, good, true, ""},
		"PUT":             {http.MethodPut, path, good, true, ""},
		"another path":    {http.MethodPost, path + "/", good, true, ""},
		"no cookie":       {http.MethodPost, path, "", true, ""},
		"another cookie":  {http.MethodPost, path, "session=abc", true, ""},
		"an old session":  {http.MethodPost, path, "session=" + ticket{form: formPoll}.encode(), false, string(appendBlock(nil, block{typ: blockEnd}))},
		"an older stream": {http.MethodPost, path, "session=" + ticket{form: formDown}.encode(), false, string(appendBlock(nil, block{typ: blockEnd}))},
		"a new session":   {http.MethodPost, path, good, false, string(appendBlock(nil, state(0, 0)))},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHandler(path, transporttest.NewRecorder())
			defer h.Close()
			r, w := httptest.NewRequest(tt.method, tt.path, http.NoBody), httptest.NewRecorder()
			if tt.cookie != "" {
				r.Header.Set("Cookie", tt.cookie)
			}
			taken := h.ServeMount(w, r, web.Visit{})
			if taken == tt.site || w.Body.String() != tt.body || tt.site && (len(w.Header()) > 0 || len(h.sessions) > 0) {
				t.Errorf("taken %v, answered %q with %v, %d sessions", taken, w.Body, w.Header(), len(h.sessions))
			}
			if c := w.Header().Get("Cache-Control"); !tt.site && c != "no-store, no-transform" {
				t.Errorf("Cache-Control: %s", c)
			}
		})
	}
}

// TestBadBodies: a body that no client of ours sends ends its session.
func TestBadBodies(t *testing.T) {
	for name, body := range map[string][]byte{
		"half a block":         appendBlock(nil, frames(0, "\x00\x04ab"))[:13],
		"a frame without end":  appendBlock(nil, frames(0, "\x00\x09ab")),
		"a frame of no length": appendBlock(nil, frames(0, "\x00\x04ab\x00\x00")),
		"a block of 16 MiB":    []byte("\x00\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"),
		"state of 3 bytes":     []byte("\x01\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00abc"),
		"too much out of turn": appendBlock(appendBlock(nil, frames(9, strings.Repeat("x", maxPayload))), frames(8, strings.Repeat("x", maxPayload))),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if name == "too much out of turn" {
					for n := range uint64(3) {
						body = appendBlock(body, frames(5+n, strings.Repeat("x", maxPayload)))
					}
				}
				far := transporttest.NewRecorder()
				h := NewHandler(path, far)
				defer h.Close()
				r, w := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)), httptest.NewRecorder()
				r.Header.Set("Cookie", "session="+ticket{form: formOpen}.encode())
				if !h.ServeMount(w, r, web.Visit{}) {
					t.Fatal("not taken")
				}
				synctest.Wait()
				h.mu.Lock()
				defer h.mu.Unlock()
				if len(h.sessions) != 0 || h.strangers.Len() != 0 {
					t.Error("the session goes on")
				}
			})
		})
	}
}

// TestAnswers: what is answered in the server's place is told and nothing more is
// said.
func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		code   int
		page   string
	}{
		"a portal":    {"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n", 302, "http://portal.example/"},
		"a page":      {"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", 200, ""},
		"bad gateway": {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", 502, ""},
		"not HTTP":    {"SSH-2.0-OpenSSH_9.9\r\n", 0, ""},
		"not blocks":  {"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 6\r\n\r\n<html>", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := transporttest.NewMemory()
				ln, err := n.ListenTCP(t.Context(), front)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						c.Read(make([]byte, 4096))
						io.WriteString(c, tt.answer)
						c.Close()
					}
				}()
				_, err = New(Options{Options: web.Options{Path: path}}).Dial(t.Context(), transports.Opening{Network: n, Remote: front, Handler: transporttest.NewRecorder()})
				var status *web.StatusError
				if err == nil || errors.As(err, &status) != (tt.code != 0) || status != nil && (status.Code != tt.code || status.Interception() != tt.page) {
					t.Errorf("%v", err)
				}
				synctest.Wait()
			})
		})
	}
}

// TestWithoutTLS: where TLS does not pass, plain HTTP is tried if that is allowed, at
// once where something says so and after a while where nothing is said.
func TestWithoutTLS(t *testing.T) {
	for name, tt := range map[string]struct {
		plain, silent bool
		within        time.Duration
	}{
		"allowed":                  {true, false, time.Second},
		"allowed, nothing is said": {true, true, secureTime + time.Second},
		"not allowed":              {false, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := transporttest.NewMemory()
				ln, err := n.ListenTCP(t.Context(), front)
				if err != nil {
					t.Fatal(err)
				}
				far := transporttest.NewRecorder()
				defer transporttest.ServeWeb(&tlsless{Listener: ln, silent: tt.silent}, NewHandler(path, far), nil)()
				began := time.Now()
				asked := 0
				c, err := New(Options{Options: web.Options{TLS: true, Path: path}, Plain: tt.plain}).Dial(t.Context(), transports.Opening{
					Network: n, Remote: front, Handler: transporttest.NewRecorder(),
					First: func(d transports.Description) []transports.Packet {
						if asked++; d.CertHash != [32]byte{} {
							t.Errorf("the first flight was asked for %+v", d)
						}
						return packets(1, 1)
					},
				})
				if (err == nil) != tt.plain {
					t.Fatal(err)
				}
				if err != nil {
					return
				}
				if far.Take(1); asked != 1 || time.Since(began) > tt.within+openTime {
					t.Errorf("after %v and %d first flights", time.Since(began), asked)
				}
				c.Close()
				synctest.Wait()
			})
		})
	}
}

// TestHTTP2: the server's end works below HTTP/2 as well, where an intermediary
// speaks that to it.
func TestHTTP2(t *testing.T) {
	far := transporttest.NewRecorder()
	h := NewHandler(path, trusting{far})
	far.React(func(c transports.Carrier, ps []transports.Packet) { _ = c.Send(ps) }) // an echo
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || !h.ServeMount(w, r, web.Visit{Description: transports.Description{Source: netip.MustParseAddrPort("192.0.2.1:1")}}) {
			http.NotFound(w, r)
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	defer h.Close()
	client := server.Client()
	client.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS13
	ask := func(f form, number uint32, body io.Reader) io.ReadCloser {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(&http.Cookie{Name: cookieName, Value: ticket{form: f, number: number, session: [16]byte{1}}.encode()})
		resp, err := client.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
		return resp.Body
	}
	segment := func(n uint64) []byte { return appendBlock(nil, frames(n, fmt.Sprintf("\x00\x06spi%d", n))) }
	next := func(r io.Reader, want uint64) {
		t.Helper()
		for {
			b, err := readBlock(r)
			if err != nil {
				t.Fatal(err)
			}
			if b.typ == blockFrames {
				if b.number != want || string(b.payload) != fmt.Sprintf("\x00\x06spi%d", want) {
					t.Fatalf("block %+v, want segment %d", b, want)
				}
				return
			}
		}
	}
	first := ask(formOpen, 1, bytes.NewReader(segment(0)))
	next(first, 0)
	first.Close()
	down := ask(formDown, 2, http.NoBody)
	defer down.Close()
	next(down, 0)
	body, up := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ask(formUp, 3, body).Close()
	}()
	for n := uint64(1); n < 10; n++ {
		if _, err := up.Write(segment(n)); err != nil {
			t.Fatal(err)
		}
		next(down, n) // which came while the upload went on
	}
	up.Close()
	<-ended
}

// tlsless closes whoever begins with TLS, or says nothing to them.
type tlsless struct {
	net.Listener
	silent bool
}

func (l *tlsless) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tlslessConn{Conn: c, silent: l.silent}, nil
}

type tlslessConn struct {
	net.Conn
	silent bool
	seen   bool
}

func (c *tlslessConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.seen && b[0] == 0x16 {
		if c.silent {
			io.Copy(io.Discard, c.Conn)
		}
		c.Close()
		return 0, io.EOF
	}
	c.seen = c.seen || n > 0
	return n, err
}
