package server

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/godwit-net/godwit/ipsec/knock"
	"github.com/godwit-net/godwit/server/site"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/esp"
	"github.com/godwit-net/godwit/transports/http"
	"github.com/godwit-net/godwit/transports/portmux"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/web"
	"github.com/godwit-net/godwit/transports/websocket"
)

// ports is the one port number that all encapsulations share, and more of UDP.
type ports struct {
	addr    netip.AddrPort
	udp     map[netip.AddrPort]*udp.Listener // by where they listen
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
	p := &ports{addr: s.c.Listen, udp: make(map[netip.AddrPort]*udp.Listener)}
	ctx := context.Background()
	has := func(n transports.Name) bool { return slices.Contains(s.c.Encapsulations, n) }
	if has(transports.TCP) || has(transports.WebSocket) || has(transports.HTTP) {
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
		mux := portmux.New(ln, portmux.Options{TLS: s.tlsConfig(), Trusted: s.trusts})
		p.add(mux.Serve, mux.Close)
		if has(transports.TCP) {
			t := s.listenTCP(mux)
			p.add(t.Serve, t.Close)
		}
		var mounts []web.Mount
		if has(transports.WebSocket) {
			h := websocket.NewHandler(s.c.WebSocketPath, s)
			h.Strict = s.door != nil
			mounts = append(mounts, h)
		}
		if has(transports.HTTP) {
			mounts = append(mounts, http.NewHandler(s.c.WebSocketPath, s))
		}
		w := site.New(mux.HTTP(), site.Options{
			Content: s.c.Site, Mounts: mounts, Redirect: s.c.RedirectHTTP, Trusted: s.trusts, Logger: s.log,
		})
		p.add(w.Serve, w.Close)
	}
	for _, at := range s.udpPorts(p.addr) {
		u, err := udp.Options{NoOffload: s.c.NoOffload}.Listen(s.c.Network, at, s)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("listen on UDP %s: %w", at, err)
		}
		p.add(u.Serve, u.Close)
		p.udp[at] = u
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

// udpPort is where UDP of a name is served.
func udpPort(shared netip.AddrPort, n transports.Name) netip.AddrPort {
	if port := n.Port(); port != 0 {
		return netip.AddrPortFrom(shared.Addr(), port)
	}
	return shared
}

// udpPorts is where UDP is served: the shared port, and those that have names.
func (s *Server) udpPorts(shared netip.AddrPort) (at []netip.AddrPort) {
	for _, n := range s.c.Encapsulations {
		a := udpPort(shared, n)
		if n.Base() == transports.UDP && !slices.Contains(at, a) {
			at = append(at, a)
		}
	}
	return at
}

// listenTCP takes RFC 9329's streams, of strangers too unless they are not answered.
func (s *Server) listenTCP(mux *portmux.Mux) *tcp.Listener {
	if s.door == nil {
		return tcp.NewListener(mux.Raw(), s)
	}
	return tcp.NewStrictListener(mux.Raw(), s, tcp.Strict{Plausible: s.plausible, Refuse: mux.Web})
}

// plausible tells whether a frame may be of somebody who is answered: whether it is
// for an SA of ours, or begins as IKE_SA_INIT does.
func (s *Server) plausible(first []byte) bool {
	if len(first) < transports.MarkerSize {
		return false
	}
	if spi := binary.BigEndian.Uint32(first); spi != 0 {
		return s.table.Known(spi)
	}
	return knock.Plausible(first[transports.MarkerSize:])
}

// tlsConfig is what the web server is known by. Visitors may come with TLS 1.2, as
// to most web servers; a client of ours has 1.3 or goes away.
func (s *Server) tlsConfig() *tls.Config {
	c := &tls.Config{
		Certificates:   []tls.Certificate{s.c.TLSCertificate},
		GetCertificate: s.c.GetCertificate,
		NextProtos:     append(site.Protocols(), s.c.TLSProtocols...),
	}
	if c.GetCertificate != nil {
		c.Certificates = nil
	}
	return c
}

// trusts tells whether a reverse proxy is believed.
func (s *Server) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(s.c.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
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
