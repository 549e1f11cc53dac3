package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/esp"
	"github.com/godwit-net/godwit/transports/portmux"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/websocket"
)

// ports is the one port number that all encapsulations share.
type ports struct {
	addr    netip.AddrPort
	serve   []func() error
	closers []func() error
}

func (p *ports) close() {
	for _, c := range slices.Backward(p.closers) {
		_ = c() // ending; nobody is left to tell
	}
}

func (p *ports) add(serve, close func() error) {
	p.serve = append(p.serve, serve)
	p.closers = append(p.closers, close)
}

// listen binds the sockets. With port 0 the system chooses one that is free
// for TCP, and UDP takes the same number.
func (s *Server) listen() (*ports, error) {
	p := &ports{addr: s.c.Listen}
	ctx := context.Background()
	has := func(n transports.Name) bool { return slices.Contains(s.c.Encapsulations, n) }
	if has(transports.TCP) || has(transports.WebSocket) {
		ln, err := s.c.Network.ListenTCP(ctx, p.addr)
		if err != nil {
			return nil, fmt.Errorf("listen on TCP %s: %w", p.addr, err)
		}
		if at, err := netip.ParseAddrPort(ln.Addr().String()); err == nil {
			p.addr = netip.AddrPortFrom(p.addr.Addr(), at.Port())
		}
		if len(s.c.TLSCertificate.Certificate) == 0 {
			ln.Close()
			return nil, errors.New("a TLS certificate is needed")
		}
		mux := portmux.New(ln, &tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{s.c.TLSCertificate},
			NextProtos:   []string{"http/1.1"},
		})
		p.add(mux.Serve, mux.Close)
		if has(transports.TCP) {
			t := tcp.NewListener(mux.Raw(), s)
			p.add(t.Serve, t.Close)
		}
		if has(transports.WebSocket) {
			w := websocket.NewListener(mux.HTTP(), websocket.ListenerOptions{
				Path:     s.c.WebSocketPath,
				Handler:  s,
				CertHash: sha256.Sum256(s.c.TLSCertificate.Certificate[0]),
			})
			p.add(w.Serve, w.Close)
		}
	}
	if has(transports.UDP) {
		u, err := udp.Options{NoOffload: s.c.NoOffload}.Listen(s.c.Network, p.addr, s)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("listen on UDP %s: %w", p.addr, err)
		}
		p.add(u.Serve, u.Close)
	}
	if has(transports.ESP) {
		if err := s.listenESP(p); err != nil {
			p.close()
			return nil, err
		}
	}
	if s.c.Guests != nil {
		if err := s.listenGuests(p); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// listenESP binds a raw socket for each family that the server listens on.
func (s *Server) listenESP(p *ports) error {
	locals := []netip.Addr{p.addr.Addr()}
	if a := locals[0]; !a.IsValid() || a.IsUnspecified() {
		locals = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	opened := 0
	var failed error
	for _, local := range locals {
		e, err := esp.Listen(s.c.Network, local.Unmap(), s)
		if err != nil {
			failed = err
			continue // a host may have one family alone
		}
		opened++
		p.add(e.Serve, e.Close)
	}
	if opened == 0 {
		return failed
	}
	return nil
}
