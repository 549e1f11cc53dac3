// Package forward lets clients have ports of the server: who connects there
// reaches the client that asked for the port.
//
// It knows nothing of tunnels: it is given a listener that clients reach, and
// what dials to them.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/godwit-net/godwit/tunnel/portmsg"
	"github.com/godwit-net/godwit/tunnel/relay"
)

// Bounds of what one client may have.
const (
	maxPorts    = 32  // ports
	maxStreams  = 512 // connections under way, over all its ports
	maxFlows    = 256 // sources of datagrams at a port
	maxSessions = 4   // streams by which it asks
)

const (
	// silence is how long a client may say nothing before its ports are closed:
	// it sends a keepalive each minute.
	silence = 5 * time.Minute
	// dialTimeout is how long a client may take to answer, outages included.
	dialTimeout = 30 * time.Second
	writeWait   = 30 * time.Second
)

// Config says who may have what, and how clients and the outside are reached.
// All fields but Logger are required.
type Config struct {
	Logger *slog.Logger // nil discards
	// User names the client that has an inner address.
	User func(inner netip.Addr) (string, bool)
	// Allow tells whether a client may have a port. network is tcp or udp; an
	// invalid address stands for the server's inner addresses.
	Allow func(user, network string, at netip.AddrPort) bool
	// ListenTCP and ListenUDP open a port, for which an invalid address means the
	// same as in Allow.
	ListenTCP func(at netip.AddrPort) ([]net.Listener, error)
	ListenUDP func(at netip.AddrPort) ([]Socket, error)
	// DialTCP and DialUDP reach a client's inner address.
	DialTCP func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	DialUDP func(to netip.AddrPort) (net.Conn, error)
}

// A Socket takes datagrams; its addresses are *net.UDPAddr.
type Socket interface {
	relay.Datagrams
	Close() error
}

// A Service serves requests for ports.
type Service struct {
	c    Config
	log  *slog.Logger
	ctx  context.Context // ends with the service
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	users map[string]*user
	ports map[place]*port
}

// A place is where a port is. An invalid address is the inner ones.
type place struct {
	network string
	at      netip.AddrPort
}

func (p place) String() string {
	if !p.at.Addr().IsValid() {
		return fmt.Sprintf("%s inner:%d", p.network, p.at.Port())
	}
	return p.network + " " + p.at.String()
}

// A user is one client, while it has streams of any kind.
type user struct {
	name     string
	ctx      context.Context // ends its streams
	stop     context.CancelFunc
	sessions map[*session]bool
	ports    int
	streams  int
}

// A session is a stream by which a client asks.
type session struct {
	conn  net.Conn
	user  *user
	inner netip.Addr
}

// A port is one that a client has.
type port struct {
	place
	owner *session
	to    netip.AddrPort // at the client
	close []func() error
}

// New makes a service. Close ends it.
func New(c Config) *Service {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{c: c, log: c.Logger, users: map[string]*user{}, ports: map[place]*port{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Close ends all ports and streams and waits for that.
func (s *Service) Close() {
	s.stop()
	s.mu.Lock()
	for _, u := range s.users {
		s.release(u)
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Serve takes requests from clients until ln is closed. The error is the
// listener's.
func (s *Service) Serve(ln net.Listener) error {
	s.mu.Lock()
	if err := s.ctx.Err(); err != nil {
		s.mu.Unlock()
		return fmt.Errorf("port service: %w", net.ErrClosed)
	}
	s.wg.Add(1) // Close waits for what is accepted here
	s.mu.Unlock()
	defer s.wg.Done()
	for {
		c, err := ln.Accept()
		if err != nil {
			return fmt.Errorf("port service: %w", err)
		}
		s.wg.Go(func() { s.serve(c) })
	}
}

// Release closes a client's ports. With streams it ends what goes through them
// too: the client is gone for good.
func (s *Service) Release(name string, streams bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.users[name]; u != nil {
		s.release(u)
		if streams {
			u.stop()
		}
	}
}

// Recheck closes the ports that are not allowed any more; what goes through them
// goes on.
func (s *Service) Recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, p := range s.ports {
		if !s.c.Allow(p.owner.user.name, at.network, at.at) {
			s.closePort(p)
		}
	}
}

// release closes a client's ports and the streams by which it asked, so that it
// knows. s.mu is held.
func (s *Service) release(u *user) {
	for one := range u.sessions {
		_ = one.conn.Close()
		s.closePorts(one)
	}
}

// closePorts closes the ports of a session. s.mu is held.
func (s *Service) closePorts(one *session) {
	for _, p := range s.ports {
		if p.owner == one {
			s.closePort(p)
		}
	}
}

// closePort closes a port. s.mu is held.
func (s *Service) closePort(p *port) {
	delete(s.ports, p.place)
	p.owner.user.ports--
	for _, c := range p.close {
		_ = c()
	}
	s.log.LogAttrs(s.ctx, slog.LevelInfo, "port closed", slog.String("user", p.owner.user.name), slog.String("port", p.String()))
}

// enter gives the user of a new session.
func (s *Service) enter(one *session, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	u := s.users[name]
	if u == nil {
		u = &user{name: name, sessions: map[*session]bool{}}
		u.ctx, u.stop = context.WithCancel(s.ctx)
		s.users[name] = u
	}
	if len(u.sessions) >= maxSessions {
		return errors.New("too many sessions")
	}
	one.user = u
	u.sessions[one] = true
	return nil
}

// leave ends a session.
func (s *Service) leave(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closePorts(one)
	delete(one.user.sessions, one)
	s.forget(one.user)
}

// forget drops a user that has nothing any more. s.mu is held.
func (s *Service) forget(u *user) {
	if len(u.sessions) == 0 && u.streams == 0 && s.users[u.name] == u {
		delete(s.users, u.name)
		u.stop()
	}
}

// serve takes one client's requests.
func (s *Service) serve(c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	name, ok := s.c.User(from.Addr().Unmap())
	if !ok {
		return
	}
	one := &session{conn: c, inner: from.Addr().Unmap()}
	if err := s.enter(one, name); err != nil {
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "port session refused", slog.String("user", name), slog.Any("err", err))
		return
	}
	defer s.leave(one)
	for {
		_ = c.SetReadDeadline(time.Now().Add(silence))
		m, err := portmsg.Read(c)
		if err != nil {
			s.log.LogAttrs(s.ctx, slog.LevelDebug, "port session ended", slog.String("user", name), slog.Any("err", err))
			return
		}
		r, ok := m.(*portmsg.Request)
		if !ok {
			continue
		}
		reply := s.open(one, r)
		b, err := portmsg.Append(nil, reply)
		if err == nil {
			_ = c.SetWriteDeadline(time.Now().Add(writeWait))
			_, err = c.Write(b)
		}
		if err != nil {
			return
		}
	}
}

// open opens a port for a session.
func (s *Service) open(one *session, r *portmsg.Request) *portmsg.Reply {
	at := place{r.Network, netip.AddrPortFrom(r.At, r.Port)}
	reply := &portmsg.Reply{ID: r.ID}
	if !s.c.Allow(one.user.name, r.Network, at.at) {
		reply.Status, reply.Reason = portmsg.NotAllowed, "the server's allow_forward does not name it"
		return reply
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to := netip.AddrPortFrom(one.inner, r.To)
	before := s.ports[at]
	switch {
	case !one.user.sessions[one] || s.ctx.Err() != nil:
		reply.Status, reply.Reason = portmsg.Failed, "the session has ended"
	case before != nil && before.owner.user == one.user:
		// The client asks anew: its stream broke, or it was started again.
		before.owner, before.to = one, to
	case before != nil:
		reply.Status, reply.Reason = portmsg.InUse, "another client has it"
	case one.user.ports >= maxPorts:
		reply.Status, reply.Reason = portmsg.TooMany, fmt.Sprintf("a client may have %d ports", maxPorts)
	default:
		p := &port{place: at, owner: one, to: to}
		if err := s.listen(p); err != nil {
			reply.Status, reply.Reason = statusOf(err)
			break
		}
		s.ports[at] = p
		one.user.ports++
		s.log.LogAttrs(s.ctx, slog.LevelInfo, "port opened", slog.String("user", one.user.name), slog.String("port", at.String()))
	}
	return reply
}

// statusOf tells a client why a port could not be opened. What the system says
// is not passed on but for what a client can do something about.
func statusOf(err error) (portmsg.Status, string) {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return portmsg.InUse, "another program of the server has it"
	case errors.Is(err, syscall.EACCES):
		return portmsg.Failed, "the server has no right to ports below 1024"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return portmsg.Failed, "the server does not have this address"
	}
	return portmsg.Failed, "the server's system refuses it"
}

// listen opens a port's sockets and serves them. s.mu is held.
func (s *Service) listen(p *port) error {
	if p.network == "udp" {
		sockets, err := s.c.ListenUDP(p.at)
		if err != nil {
			return err
		}
		for _, pc := range sockets {
			p.close = append(p.close, pc.Close)
			s.wg.Go(func() {
				relay.Flows{Max: maxFlows, Dial: func() (net.Conn, error) { return s.c.DialUDP(s.target(p)) }}.Serve(pc)
			})
		}
		return nil
	}
	listeners, err := s.c.ListenTCP(p.at)
	if err != nil {
		return err
	}
	for _, ln := range listeners {
		p.close = append(p.close, ln.Close)
		s.wg.Go(func() { s.accept(ln, p) })
	}
	return nil
}

// target is where a port leads by now.
func (s *Service) target(p *port) netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.to
}

func (s *Service) accept(ln net.Listener, p *port) {
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			s.wg.Go(func() { s.stream(c, p) })
		case errors.Is(err, net.ErrClosed):
			return
		default: // short of something, or gone before it was taken
			s.log.LogAttrs(s.ctx, slog.LevelWarn, "cannot accept a connection", slog.String("port", p.String()), slog.Any("err", err))
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
		}
	}
}

// begin counts a stream of a port's owner, if there is room for it.
func (s *Service) begin(p *port) (*user, netip.AddrPort, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := p.owner.user
	if u.streams >= maxStreams || s.ports[p.place] != p {
		return nil, netip.AddrPort{}, false
	}
	u.streams++
	return u, p.to, true
}

func (s *Service) end(u *user) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.streams--
	s.forget(u)
}

// stream leads one connection to the client.
func (s *Service) stream(c net.Conn, p *port) {
	u, to, ok := s.begin(p)
	if !ok {
		relay.Reset(c)
		return
	}
	defer s.end(u)
	defer context.AfterFunc(u.ctx, func() { _ = c.Close() })()
	ctx, cancel := context.WithTimeout(u.ctx, dialTimeout)
	far, err := s.c.DialTCP(ctx, to)
	cancel()
	if err != nil {
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "client does not take a connection", slog.String("user", u.name), slog.String("port", p.String()), slog.Any("err", err))
		relay.Reset(c)
		return
	}
	defer context.AfterFunc(u.ctx, func() { _ = far.Close() })()
	relay.Join(c, far)
}

// Inner tells whether a client has a port at the server's inner addresses.
func (s *Service) Inner(network string, number uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[place{network, netip.AddrPortFrom(netip.Addr{}, number)}] != nil
}
