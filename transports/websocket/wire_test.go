package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/stream"
	"github.com/godwit-net/godwit/transports/transporttest"
	"github.com/godwit-net/godwit/transports/web"
)

var address = netip.MustParseAddrPort("192.0.2.1:443")

// tapped is a network that keeps what goes over its dialled connections.
type tapped struct {
	*transporttest.Memory
	mu       sync.Mutex
	writes   []string
	received bytes.Buffer
}

type tappedConn struct {
	net.Conn
	tap *tapped
}

func (t *tapped) DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	c, err := t.Memory.DialTCP(ctx, local, remote)
	return tappedConn{c, t}, err
}

func (c tappedConn) Write(b []byte) (int, error) {
	c.tap.mu.Lock()
	c.tap.writes = append(c.tap.writes, string(b))
	c.tap.mu.Unlock()
	return c.Conn.Write(b)
}

func (c tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.mu.Lock()
	c.tap.received.Write(b[:n])
	c.tap.mu.Unlock()
	return n, err
}

func packets(sizes ...int) (ps []transports.Packet) {
	for i, n := range sizes {
		ps = append(ps, transports.Packet{Kind: transports.KindESP, Data: transporttest.Payload(transports.KindESP, n, i)})
	}
	return ps
}

// TestFirstFlight: request and first packets leave in one write before anything
// comes back, whether they fit the header or not, and what the server answers
// at once is in the header of the 101.
func TestFirstFlight(t *testing.T) {
	for _, sizes := range [][]int{{300, 1400}, {300, 3000, 3000, 60000, 60000, 60000}} {
		synctest.Test(t, func(t *testing.T) {
			n, server, client := &tapped{Memory: transporttest.NewMemory()}, transporttest.NewRecorder(), transporttest.NewRecorder()
			_, stop := suite(Options{}, nil).Serve(t, n, address, server)
			defer stop()
			answer := packets(200, 1400)
			var once sync.Once
			server.React(func(c transports.Carrier, _ []transports.Packet) { once.Do(func() { c.Send(answer) }) })
			c, err := New(Options{Path: path, Host: "example.org"}).Dial(t.Context(), transports.Opening{
				Network: n, Remote: address, Handler: client,
				First: func(d transports.Description) []transports.Packet {
					if len(n.writes) != 0 || d.Authority != "example.org" || d.Path != path {
						t.Errorf("First was asked after %d writes for %+v", len(n.writes), d)
					}
					return packets(sizes...)
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			synctest.Wait()
			if fits := len(sizes) == 2; fits && len(n.writes) != 1 {
				t.Fatalf("%d writes", len(n.writes))
			}
			head, behind, _ := strings.Cut(n.writes[0], "\r\n\r\n")
			if behind != "" {
				t.Errorf("%d bytes of frames left with the request", len(behind))
			}
			for line := range strings.SplitSeq(head, "\r\n") {
				if len(line) > 8<<10 {
					t.Errorf("a header line of %d bytes", len(line))
				}
			}
			got := server.Packets(len(sizes))
			for i, p := range packets(sizes...) {
				if !bytes.Equal(got[i].Data, p.Data) {
					t.Errorf("packet %d is not the one sent", i)
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(&n.received), nil)
			if err != nil {
				t.Fatal(err)
			}
			if k := resp.Cookies(); resp.StatusCode != 101 || len(k) != 1 || k[0].Value != encodeFlight(frames(answer)) {
				t.Errorf("response %s with cookies %v", resp.Status, k)
			}
			if left := n.received.Len(); left != 0 {
				t.Errorf("%d bytes behind the response", left)
			}
			if got := client.Packets(2); !bytes.Equal(got[1].Data, answer[1].Data) {
				t.Error("the answer is not the one sent")
			}
		})
	}
}

func frames(ps []transports.Packet) (b []byte) {
	for _, p := range ps {
		b = stream.AppendFrame(b, p)
	}
	return b
}

// dial opens a carrier in memory to a server with or without a certificate.
func dial(t *testing.T, o Options, cert *tls.Certificate) (transports.Carrier, error) {
	n := transporttest.NewMemory()
	_, stop := suite(Options{}, cert).Serve(t, n, address, transporttest.NewRecorder())
	t.Cleanup(stop)
	c, err := New(o).Dial(t.Context(), transports.Opening{Network: n, Remote: address, Handler: transporttest.NewRecorder()})
	if c != nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func TestCertificates(t *testing.T) {
	cert, hash := transporttest.Certificate(t)
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	for _, c := range []struct {
		name    string
		options Options
		refused bool
		pki     bool // by the Web PKI
	}{
		{name: "pinned", options: Options{CertHash: hash}},
		{name: "pinned, name does not matter", options: Options{CertHash: hash, ServerName: "other.example", RootCAs: x509.NewCertPool()}},
		{name: "another one pinned", options: Options{CertHash: sha256.Sum256([]byte("other"))}, refused: true},
		{name: "another one pinned, though the Web PKI trusts", options: Options{CertHash: [32]byte{1}, ServerName: "gateway.example", RootCAs: roots}, refused: true},
		{name: "Web PKI", options: Options{ServerName: "gateway.example", RootCAs: roots}},
		{name: "Web PKI, name from Host", options: Options{Host: "gateway.example:8443", RootCAs: roots}},
		{name: "Web PKI, other name", options: Options{ServerName: "other.example", RootCAs: roots}, refused: true, pki: true},
		{name: "Web PKI, unknown authority", options: Options{ServerName: "gateway.example", RootCAs: x509.NewCertPool()}, refused: true, pki: true},
	} {
		for _, f := range []web.Fingerprint{"", web.Chrome, web.Firefox} {
			t.Run(c.name+" "+string(f), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c.options.TLS, c.options.Path, c.options.Fingerprint = true, path, f
					carrier, err := dial(t, c.options, &cert)
					var refused *web.CertError
					switch {
					case !c.refused && err != nil:
						t.Fatal(err)
					case !c.refused:
						if carrier.Describe().CertHash != hash {
							t.Errorf("description says %x", carrier.Describe().CertHash)
						}
					case !errors.As(err, &refused) || refused.Seen != hash || (refused.Err != nil) != c.pki:
						t.Errorf("refused with %v", err)
					}
				})
			})
		}
	}
}

// TestHello has the ClientHello and the User-Agent of one browser, offering
// HTTP/1.1 alone, with the names of TLS and HTTP apart.
func TestHello(t *testing.T) {
	cert, hash := transporttest.Certificate(t)
	for f, want := range map[web.Fingerprint]struct {
		agent  string
		grease bool // RFC 8701, which of these only Chrome does
	}{web.Go: {"Firefox/", false}, web.Chrome: {"Chrome/", true}, web.Firefox: {"Firefox/", false}} {
		synctest.Test(t, func(t *testing.T) {
			n := transporttest.NewMemory()
			ln, err := n.ListenTCP(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			var hello tls.ClientHelloInfo
			ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				hello = *h
				return nil, nil
			}})
			defer ln.Close()
			asked := make(chan *http.Request, 1)
			go func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				r, _ := http.ReadRequest(bufio.NewReader(c))
				asked <- r
			}()
			_, err = New(Options{TLS: true, CertHash: hash, Path: path, ServerName: "front.example", Host: "back.example", Fingerprint: f}).Dial(t.Context(),
				transports.Opening{Network: n, Remote: address, Handler: transporttest.NewRecorder()})
			if err == nil {
				t.Fatal("a connection without an answer")
			}
			r := <-asked
			if r == nil || r.Host != "back.example" || !strings.Contains(r.UserAgent(), want.agent) {
				t.Errorf("%s: request %+v", f, r)
			}
			grease := len(hello.CipherSuites) > 0 && hello.CipherSuites[0]&0x0f0f == 0x0a0a
			if hello.ServerName != "front.example" || !slices.Equal(hello.SupportedProtos, []string{"http/1.1"}) || grease != want.grease {
				t.Errorf("%s: hello for %s, protocols %q, grease %v", f, hello.ServerName, hello.SupportedProtos, grease)
			}
		})
	}
}

// TestOldTLS: below 1.3 nothing is said.
func TestOldTLS(t *testing.T) {
	cert, hash := transporttest.Certificate(t)
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewMemory()
		ln, err := n.ListenTCP(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12}), transporttest.NewRecorder(), nil)()
		for _, f := range []web.Fingerprint{"", web.Chrome, web.Firefox} {
			_, err = New(Options{TLS: true, CertHash: hash, Path: path, Fingerprint: f}).Dial(t.Context(), transports.Opening{Network: n, Remote: address, Handler: transporttest.NewRecorder()})
			if err == nil {
				t.Errorf("TLS 1.2 was taken by %q", f)
			}
		}
	})
}

func TestWrongPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := dial(t, Options{Path: "/other"}, nil)
		var status *web.StatusError
		if !errors.As(err, &status) || status.Code != http.StatusNotFound {
			t.Errorf("wrong path: %v", err)
		}
	})
}

// answering serves a fixed answer to whatever comes.
func answering(t *testing.T, n transports.Network, answer string) {
	ln, err := n.ListenTCP(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			conn.Read(make([]byte, 4096))
			io.WriteString(conn, answer)
		}
	}()
}

// TestPortal: a redirect is reported and not followed; garbage and endless
// headers are errors.
func TestPortal(t *testing.T) {
	for _, c := range []struct {
		answer string
		code   int
	}{
		{"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n", 302},
		{"HTTP/1.1 200 OK\r\n\r\n<html>", 200},
		{"SSH-2.0-OpenSSH_9.9\r\n", 0},
		{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n", 0},
		{"HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", 1<<20), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			n, client := transporttest.NewMemory(), transporttest.NewRecorder()
			answering(t, n, c.answer)
			_, err := New(Options{Path: path}).Dial(t.Context(), transports.Opening{Network: n, Remote: address, Handler: client})
			var status *web.StatusError
			if err == nil || errors.As(err, &status) != (c.code != 0) || status != nil && status.Code != c.code {
				t.Errorf("answer %.40q: %v", c.answer, err)
			}
			if c.code == 302 && status.Location != "http://portal.example/" {
				t.Errorf("redirect to %q", status.Location)
			}
		})
	}
}

// TestCancelSilent: servers that accept and say no more do not hold Dial.
func TestCancelSilent(t *testing.T) {
	for _, tls := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := transporttest.NewMemory()
			answering(t, n, "")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := New(Options{TLS: tls, CertHash: [32]byte{1}, Path: path}).Dial(ctx, transports.Opening{Network: n, Remote: address, Handler: transporttest.NewRecorder()})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("TLS %t: %v", tls, err)
			}
		})
	}
}

// visit sends one request by hand and gives the response.
func visit(t *testing.T, request string) (resp *http.Response, conn net.Conn, server *transporttest.Recorder) {
	n := transporttest.NewMemory()
	server = transporttest.NewRecorder()
	_, stop := suite(Options{}, nil).Serve(t, n, address, server)
	t.Cleanup(stop)
	conn, err := n.DialTCP(t.Context(), netip.Addr{}, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	io.WriteString(conn, request)
	resp, err = http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, conn, server
}

const upgradeHead = "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// TestVisitors: who does not upgrade properly is left to the web server, and no packet of
// theirs is delivered.
func TestVisitors(t *testing.T) {
	good := "Cookie: session=" + encodeFlight(frames(packets(100))) + "\r\n"
	for _, c := range []struct {
		name, request string
		code          int
		packets       int
	}{
		{"another path", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, 0},
		{"secret path without upgrade", "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", 404, 0},
		{"no key", strings.Replace(upgradeHead, "AAAA", "", 1) + good + "\r\n", 404, 0},
		{"POST", strings.Replace(upgradeHead, "GET", "POST", 1) + good + "Content-Length: 0\r\n\r\n", 404, 0},
		{"no base64", upgradeHead + "Cookie: session=...\r\n\r\n", 404, 0},
		{"half a frame", upgradeHead + "Cookie: session=" + encodeFlight(frames(packets(100))[:50]) + "\r\n\r\n", 404, 0},
		{"too long", upgradeHead + "Cookie: session=" + encodeFlight(frames(packets(maxFlight))) + "\r\n\r\n", 404, 0},
		{"upgrade without packets", upgradeHead + "\r\n", 101, 0},
		{"other cookies", upgradeHead + "Cookie: a=b\r\n\r\n", 101, 0},
		{"upgrade", upgradeHead + good + "\r\n", 101, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				resp, _, server := visit(t, c.request)
				synctest.Wait()
				if resp.StatusCode != c.code {
					t.Errorf("status %d, want %d", resp.StatusCode, c.code)
				}
				if got := len(server.Packets(0)); got != c.packets {
					t.Errorf("%d packets delivered", got)
				}
			})
		})
	}
}

// TestBadMessages: what is no whole packet in a binary message ends the carrier.
func TestBadMessages(t *testing.T) {
	good := "\x82\x85\x00\x00\x00\x00\x00\x05esp"
	huge := "\x82\xff\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x00\x04ab", 1<<18)
	for _, c := range []struct {
		name, message string
		protocol      bool
	}{
		{"text", "\x81\x85\x00\x00\x00\x00\x00\x05esp", true},
		{"half a frame", "\x82\x84\x00\x00\x00\x00\x00\x05es", true},
		{"length 1", "\x82\x82\x00\x00\x00\x00\x00\x01", true},
		{"not masked", "\x82\x05\x00\x05esp", false},
		{"too large", huge, false},
		{"closed", "\x88\x82\x00\x00\x00\x00\x03\xe8", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conn, server := visit(t, upgradeHead+"\r\n")
				go io.Copy(io.Discard, conn)
				go io.WriteString(conn, good+c.message+good)
				ends := server.Ends(server.Carrier())
				if len(ends) != 1 || errors.Is(ends[0], transports.ErrProtocol) != c.protocol || errors.Is(ends[0], net.ErrClosed) {
					t.Errorf("ended with %v", ends)
				}
				if n := server.AfterEnd(); n != 0 {
					t.Errorf("%d packets after the end", n)
				}
			})
		})
	}
}

// FuzzDecodeFlight: a cookie never panics, and what it holds is written again
// as frames that hold the same.
func FuzzDecodeFlight(f *testing.F) {
	f.Add(encodeFlight(frames(packets(10, 20))))
	f.Add("")
	f.Add("AAE")
	f.Fuzz(func(t *testing.T, s string) {
		ps, err := decodeFlight(s)
		if err != nil {
			if !errors.Is(err, transports.ErrProtocol) || ps != nil {
				t.Fatalf("%v, %v", ps, err)
			}
			return
		}
		again, err := decodeFlight(encodeFlight(frames(ps)))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(ps) {
			t.Fatalf("%v became %v, %v", ps, again, err)
		}
	})
}

// FuzzMessages: a server outlives any bytes behind the upgrade, and its carrier
// ends once.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("\x82\x85\x00\x00\x00\x00\x00\x05esp"))
	f.Add([]byte("\x89\x80\x00\x00\x00\x00\x82\x05"))
	f.Add([]byte("\x02\x82\x00\x00\x00\x00\x00\x05\x80\x83\x00\x00\x00\x00esp"))
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			_, conn, server := visit(t, upgradeHead+"Cookie: session="+encodeFlight(frames(packets(10)))+"\r\n\r\n")
			go io.Copy(io.Discard, conn)
			conn.Write(b)
			synctest.Wait()
			conn.Close()
			if ends := server.Ends(server.Carrier()); len(ends) != 1 || server.AfterEnd() != 0 {
				t.Fatalf("ended with %v", ends)
			}
		})
	})
}
