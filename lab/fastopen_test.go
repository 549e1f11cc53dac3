package lab

import (
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestFastOpen: the first bytes arrive half a round trip after they were written,
// and after the handshake where the SYN with them is lost.
func TestFastOpen(t *testing.T) {
	const r = 100 * time.Millisecond
	for name, tt := range map[string]struct {
		on   bool
		lost bool
		want time.Duration // until the server has the bytes
	}{
		"on":   {on: true, want: r / 2},
		"off":  {want: 3 * r / 2},
		"lost": {on: true, lost: true, want: time.Second + 3*r/2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := New(1)
				defer in.Close()
				in.SetFastOpen(tt.on)
				swallow := tt.lost
				home := in.AddNetwork("home", NetworkConfig{Prefixes: Prefixes("192.0.2.0/24"), Link: Link{Delay: r / 2}})
				home.SetFirewall(func(p Packet) Verdict {
					if swallow && len(p.Payload) > 0 {
						swallow = false
						return Drop
					}
					return Pass
				})
				client, server := in.AddHost("client"), in.AddHost("server")
				client.Attach("if0", home)
				server.Attach("eth0", in.Core(), Addrs("198.51.100.2")...)
				ln, err := server.ListenTCP(t.Context(), netip.MustParseAddrPort("198.51.100.2:443"))
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				c, err := client.DialTCPEarly(t.Context(), netip.Addr{}, netip.MustParseAddrPort("198.51.100.2:443"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write([]byte("first")); err != nil {
					t.Fatal(err)
				}
				s, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				b := make([]byte, 5)
				if _, err := io.ReadFull(s, b); err != nil || string(b) != "first" {
					t.Fatalf("got %q, %v", b, err)
				}
				if took := time.Since(start); took != tt.want {
					t.Errorf("took %v, want %v", took, tt.want)
				}
				if got := s.(*tcpConn).Handshaking(); got != (tt.on && !tt.lost) {
					t.Errorf("handshaking: %v", got)
				}
				if err := c.Connected(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
