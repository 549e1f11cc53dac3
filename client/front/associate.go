package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/things-go/go-socks5"
	"github.com/things-go/go-socks5/statute"
)

const (
	maxDatagram = 1<<16 - 1
	// associateBuffer is how much may wait that an application has sent, in bytes.
	associateBuffer = 1 << 20
)

// associate serves UDP ASSOCIATE, RFC 1928, Sections 4 and 7: it opens a local
// UDP port for as long as the application keeps the TCP connection, and passes
// whole datagrams, headers included, to the far end and back. Names in the
// headers stay names.
func (s *Server) associate(ctx context.Context, w io.Writer, r *socks5.Request) error {
	c, ok := w.(*peeked)
	if !ok {
		return errors.New("SOCKS request without a connection")
	}
	if s.c.Associate == nil {
		return unsupported(ctx, w, r)
	}
	fail := func(err error) error {
		return errors.Join(err, socks5.SendReply(w, statute.RepServerFailure, noBind))
	}
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	app, ok2 := c.RemoteAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return fail(errors.New("UDP ASSOCIATE needs a TCP connection"))
	}
	_ = c.SetReadDeadline(noDeadline)
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: local.IP, Zone: local.Zone})
	if err != nil {
		return fail(fmt.Errorf("UDP ASSOCIATE: %w", err))
	}
	// Applications send in bursts; the system grants what it likes of this.
	_ = pc.SetReadBuffer(associateBuffer)
	far, err := s.c.Associate(s.ctx)
	if err != nil {
		_ = pc.Close()
		return fail(fmt.Errorf("UDP ASSOCIATE: %w", err))
	}
	if err := socks5.SendReply(w, statute.RepSuccess, pc.LocalAddr()); err != nil {
		_ = pc.Close()
		_ = far.Close()
		return err
	}
	a := &association{s: s, pc: pc, far: far, app: app.AddrPort().Addr().Unmap()}
	// "If the client is not in possession of the information at the time of the
	// UDP ASSOCIATE, the client MUST use a port number and address of all
	// zeros." RFC 1928, Section 4. The address is the connection's in any case.
	if p := r.RawDestAddr.Port; p > 0 && p < 1<<16 {
		a.from.Store(&fixed{netip.AddrPortFrom(a.app, uint16(p))})
	}
	c.then = func() {
		defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
		done := make(chan struct{}, 2)
		go func() { a.out(); done <- struct{}{} }()
		go func() { a.back(); done <- struct{}{} }()
		// "A UDP association terminates when the TCP connection that the UDP
		// ASSOCIATE request arrived on terminates." RFC 1928, Section 7
		_, _ = io.Copy(io.Discard, c)
		_ = pc.Close()
		_ = far.Close()
		<-done
		<-done
		_ = c.Close()
	}
	return nil
}

// fixed is the application's socket, once it is known.
type fixed struct{ netip.AddrPort }

type association struct {
	s    *Server
	pc   *net.UDPConn
	far  net.Conn
	app  netip.Addr
	from atomic.Pointer[fixed]
}

// out passes on what the application sends. Who else reaches the port is not
// listened to.
func (a *association) out() {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := a.pc.ReadFromUDPAddrPort(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // the answer of a socket that was closed
		}
		from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		known := a.from.Load()
		if from.Addr() != a.app.WithZone("") || known != nil && from.Port() != known.Port() {
			continue
		}
		if d, err := statute.ParseDatagram(b[:n]); err != nil || d.Frag != 0 {
			a.s.log.LogAttrs(a.s.ctx, slog.LevelDebug, "UDP datagram without a header", slog.Any("err", err))
			continue
		}
		if known == nil {
			a.from.Store(&fixed{from})
		}
		if _, err := a.far.Write(b[:n]); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// back passes on what comes for the application.
func (a *association) back() {
	b := make([]byte, maxDatagram)
	for {
		n, err := a.far.Read(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || a.s.ctx.Err() != nil || errors.Is(err, io.EOF) {
				return
			}
			continue
		}
		if to := a.from.Load(); to != nil {
			_, _ = a.pc.WriteToUDPAddrPort(b[:n], to.AddrPort)
		}
	}
}
