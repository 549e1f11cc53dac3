package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections may wait for Accept; beyond it SYNs are
// answered with cookies, which cost no memory.
const backlog = 1024

// DialTCP connects to remote. The connection has CloseWrite and CloseRead as
// *net.TCPConn has. Errors match those of package net: syscall.ECONNREFUSED
// and so on. While nothing answers, it goes on trying until ctx ends, since an
// outage may be long; ctx ends the attempt, not the connection.
func (s *Stack) DialTCP(ctx context.Context, remote netip.AddrPort) (net.Conn, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	if !remote.IsValid() || remote.Addr().IsUnspecified() {
		return nil, fmt.Errorf("dial %s: not a host's address", remote)
	}
	for {
		c, err := s.dial(ctx, remote)
		if !errors.Is(err, syscall.ETIMEDOUT) {
			if err != nil {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(remote), Err: err}
			}
			return c, nil
		}
	}
}

// dial makes one attempt, with about two minutes of SYNs.
func (s *Stack) dial(ctx context.Context, remote netip.AddrPort) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.isClosed() {
		return nil, net.ErrClosed
	}
	wq := new(waiter.Queue)
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, protocol(remote.Addr()), wq)
	if terr != nil {
		return nil, wrap(terr)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)

	terr = ep.Connect(full(remote))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		case <-s.done:
			ep.Close()
			return nil, net.ErrClosed
		}
	}
	if terr != nil {
		ep.Close()
		if s.isClosed() {
			return nil, net.ErrClosed
		}
		return nil, wrap(terr)
	}
	configureEndpoint(ep)
	return newConn(s, wq, ep), nil
}

func (s *Stack) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// ListenTCP listens on local; an unspecified address means all of the stack's
// of that family, port 0 a free one. The connections that Accept gives are as
// those of DialTCP.
func (s *Stack) ListenTCP(local netip.AddrPort) (net.Listener, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(local), Err: err}
	}
	if !local.IsValid() {
		return fail(errors.New("no address"))
	}
	if s.isClosed() {
		return fail(net.ErrClosed)
	}
	l := &listener{stack: s, closed: make(chan struct{})}
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, protocol(local.Addr()), &l.wq)
	if terr != nil {
		return fail(wrap(terr))
	}
	l.ep = ep
	terr = ep.Bind(full(local))
	if terr == nil {
		terr = ep.Listen(backlog)
	}
	var bound tcpip.FullAddress
	if terr == nil {
		bound, terr = ep.GetLocalAddress()
	}
	if terr != nil {
		ep.Close()
		return fail(wrap(terr))
	}
	l.addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), bound.Port))
	return l, nil
}

type listener struct {
	stack  *Stack
	wq     waiter.Queue
	ep     tcpip.Endpoint
	addr   net.Addr
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Close() error {
	err := error(&net.OpError{Op: "close", Net: "tcp", Addr: l.addr, Err: net.ErrClosed})
	l.once.Do(func() {
		close(l.closed)
		l.ep.Close()
		err = nil
	})
	return err
}

func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, terr := l.ep.Accept(nil)
		if terr == nil {
			configureEndpoint(ep)
			return newConn(l.stack, wq, ep), nil
		}
		var err error
		if _, wait := terr.(*tcpip.ErrWouldBlock); !wait {
			err = wrap(terr)
		}
		closed := l.closed
		if err == nil {
			select {
			case <-ready:
				continue
			case <-closed:
			case <-l.stack.done:
			}
		}
		select {
		case <-closed:
			err = net.ErrClosed
		case <-l.stack.done:
			err = net.ErrClosed
		default:
		}
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
	}
}
