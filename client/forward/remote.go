package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godwit-net/godwit/tunnel/portmsg"
	"github.com/godwit-net/godwit/tunnel/relay"
)

// A RemoteRule is one port of the server and where it leads on this side.
type RemoteRule struct {
	Network string // tcp or udp
	// At is the address and port at the server; an invalid address stands for
	// the server's inner addresses.
	At     netip.AddrPort
	Target string // host:port as this machine reaches it
}

// inner is how the server's inner addresses are written.
const inner = "inner"

// String is what ParseRemote reads.
func (r RemoteRule) String() string {
	at := r.At.String()
	if !r.At.Addr().IsValid() {
		at = inner + ":" + strconv.Itoa(int(r.At.Port()))
	}
	return r.Network + " " + at + " " + r.Target
}

// ParseRemote reads a rule such as "tcp [::]:8080 127.0.0.1:3000"; "inner:8080" is
// a port of the server's inner addresses.
func ParseRemote(s string) (RemoteRule, error) {
	f := strings.Fields(s)
	if len(f) != 3 || f[0] != "tcp" && f[0] != "udp" {
		return RemoteRule{}, fmt.Errorf("%q is not of the form: tcp or udp, address and port of the server, host and port here", s)
	}
	r := RemoteRule{Network: f[0], Target: f[2]}
	if port, ok := strings.CutPrefix(f[1], inner+":"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return RemoteRule{}, fmt.Errorf("%q is not an inner port of the server", f[1])
		}
		r.At = netip.AddrPortFrom(netip.Addr{}, uint16(n))
	} else {
		at, err := netip.ParseAddrPort(f[1])
		if err != nil || at.Addr().Zone() != "" {
			return RemoteRule{}, fmt.Errorf("%q is not an address and a port of the server", f[1])
		}
		r.At = at
	}
	if r.At.Port() == 0 {
		return RemoteRule{}, fmt.Errorf("%q has port 0", f[1])
	}
	if !isTarget(r.Target) {
		return RemoteRule{}, fmt.Errorf("%q is not a host and a port", r.Target)
	}
	return r, nil
}

// isTarget tells whether s is host:port.
func isTarget(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && n > 0 && host != "" && len(host) <= 255
}

// An Inside is this end's place inside the tunnel.
type Inside interface {
	// Control connects to the server's service for ports.
	Control(ctx context.Context) (net.Conn, error)
	// ListenTCP and ListenUDP open a port that the server can reach.
	ListenTCP() (net.Listener, error)
	ListenUDP() (net.PacketConn, error)
}

const (
	keepaliveEvery = time.Minute // the server closes ports after five minutes of silence
	askAgain       = time.Minute // for ports that were refused; settings may have changed
	shortestPause  = time.Second // before the next attempt to reach the service
	longestPause   = 30 * time.Second
	dialTarget     = 30 * time.Second
)

// RemoteConfig says which ports are asked for and how.
type RemoteConfig struct {
	Rules []RemoteRule
	// Open waits for the link and gives its inside.
	Open   func(ctx context.Context) (Inside, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error) // to targets; nil: the system's
	Logger *slog.Logger                                                         // nil discards
}

// A Remote keeps ports of the server open.
type Remote struct {
	c    RemoteConfig
	log  *slog.Logger
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	rules   []RemoteRule
	changed chan struct{} // closed when rules are others than run goes by
}

// StartRemote asks the server for ports until Close, also after it has lost
// them.
func StartRemote(c RemoteConfig) *Remote {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	r := &Remote{c: c, log: c.Logger, rules: c.Rules, changed: make(chan struct{})}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.wg.Go(r.run)
	return r
}

// Update has other rules from now on: the ports are asked for anew. Streams that
// are open go on.
func (r *Remote) Update(rules []RemoteRule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = rules
	close(r.changed)
	r.changed = make(chan struct{})
}

// Close gives the ports back, ends what goes through them, and waits for that.
func (r *Remote) Close() {
	r.stop()
	r.wg.Wait()
}

func (r *Remote) run() {
	pause := shortestPause
	for {
		r.mu.Lock()
		rules, changed := r.rules, r.changed
		r.mu.Unlock()
		if len(rules) == 0 {
			select {
			case <-changed:
				continue
			case <-r.ctx.Done():
				return
			}
		}
		answered, err := r.ask(rules, changed)
		if r.ctx.Err() != nil {
			return
		}
		select {
		case <-changed:
			continue
		default:
		}
		if errors.Is(err, errors.ErrUnsupported) {
			r.log.LogAttrs(r.ctx, slog.LevelWarn, "no ports of the server: it is not godwit", slog.Any("err", err))
			return
		}
		if answered {
			pause = shortestPause
		}
		r.log.LogAttrs(r.ctx, slog.LevelDebug, "ports of the server are lost; asking again", slog.Duration("in", pause), slog.Any("err", err))
		select {
		case <-time.After(pause):
		case <-changed:
		case <-r.ctx.Done():
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// A session is one stream by which ports are asked for.
type session struct {
	r      *Remote
	rules  []RemoteRule
	conn   net.Conn
	mu     sync.Mutex // of writes
	closed []func() error
	asked  []portmsg.Request // by ID
	status map[uint16]portmsg.Status
}

// ask asks for all ports and keeps them until the stream breaks or the rules
// have changed. answered tells whether the service said anything.
func (r *Remote) ask(rules []RemoteRule, changed <-chan struct{}) (answered bool, err error) {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	r.wg.Go(func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	})
	inside, err := r.c.Open(ctx)
	if err != nil {
		return false, err
	}
	conn, err := inside.Control(ctx)
	if err != nil {
		return false, fmt.Errorf("reach the server's service for ports: %w", err)
	}
	s := &session{r: r, rules: rules, conn: conn, status: map[uint16]portmsg.Status{}}
	defer s.close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	for id, rule := range rules {
		to, err := s.listen(inside, rule)
		if err != nil {
			return false, fmt.Errorf("listen inside the tunnel: %w", err)
		}
		s.asked = append(s.asked, portmsg.Request{ID: uint16(id), Network: rule.Network, At: rule.At.Addr(), Port: rule.At.Port(), To: to})
	}
	for id := range s.asked {
		if err := s.send(&s.asked[id]); err != nil {
			return false, err
		}
	}
	done := make(chan struct{})
	defer close(done)
	r.wg.Go(func() { s.keep(done) })
	for {
		m, err := portmsg.Read(conn)
		if err != nil {
			return answered, err
		}
		if reply, ok := m.(*portmsg.Reply); ok && int(reply.ID) < len(s.asked) {
			answered = true
			s.take(reply)
		}
	}
}

// take takes note of what became of a port, and tells the user what is new.
func (s *session) take(reply *portmsg.Reply) {
	s.mu.Lock()
	before, known := s.status[reply.ID]
	s.status[reply.ID] = reply.Status
	s.mu.Unlock()
	if known && before == reply.Status {
		return
	}
	rule := slog.String("forward", s.rules[reply.ID].String())
	if reply.Status == portmsg.OK {
		s.r.log.LogAttrs(s.r.ctx, slog.LevelInfo, "port of the server is open", rule)
		return
	}
	s.r.log.LogAttrs(s.r.ctx, slog.LevelWarn, "port of the server cannot be had; trying again each minute", rule,
		slog.String("status", reply.Status.String()), slog.String("reason", strconv.Quote(reply.Reason)))
}

func (s *session) send(m portmsg.Message) error {
	b, err := portmsg.Append(nil, m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.conn.Write(b)
	return err
}

// keep sends keepalives, and asks again for what was refused, until done.
func (s *session) keep(done <-chan struct{}) {
	again := time.Now().Add(askAgain)
	every := time.NewTicker(keepaliveEvery)
	defer every.Stop()
	for {
		select {
		case <-done:
			return
		case <-every.C:
		}
		var messages []portmsg.Message
		if now := time.Now(); !now.Before(again) {
			again = now.Add(askAgain)
			s.mu.Lock()
			for id := range s.asked {
				if st, known := s.status[uint16(id)]; known && st != portmsg.OK {
					messages = append(messages, &s.asked[id])
				}
			}
			s.mu.Unlock()
		}
		for _, m := range append(messages, &portmsg.Keepalive{}) {
			if s.send(m) != nil {
				return // reading fails too
			}
		}
	}
}

// close closes the ports inside; what goes through them goes on.
func (s *session) close() {
	for _, c := range slices.Backward(s.closed) {
		_ = c()
	}
	_ = s.conn.Close()
}

// listen opens the port inside that a rule's port leads to, and serves it.
func (s *session) listen(inside Inside, rule RemoteRule) (uint16, error) {
	r := s.r
	var at net.Addr
	if rule.Network == "udp" {
		pc, err := inside.ListenUDP()
		if err != nil {
			return 0, err
		}
		at = pc.LocalAddr()
		s.closed = append(s.closed, pc.Close)
		r.wg.Go(func() {
			relay.Flows{Max: maxFlows, Dial: func() (net.Conn, error) { return r.dial(rule) }}.Serve(pc)
		})
	} else {
		ln, err := inside.ListenTCP()
		if err != nil {
			return 0, err
		}
		at = ln.Addr()
		s.closed = append(s.closed, ln.Close)
		r.wg.Go(func() { r.accept(ln, rule) })
	}
	ap, err := netip.ParseAddrPort(at.String())
	return ap.Port(), err
}

func (r *Remote) dial(rule RemoteRule) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.ctx, dialTarget)
	defer cancel()
	c, err := r.c.Dial(ctx, rule.Network, rule.Target)
	if err != nil {
		r.log.LogAttrs(r.ctx, slog.LevelInfo, "forward has no target", slog.String("forward", rule.String()), slog.Any("err", err))
	}
	return c, err
}

func (r *Remote) accept(ln net.Listener, rule RemoteRule) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return // closed with the session or the stack
		}
		r.wg.Go(func() {
			defer context.AfterFunc(r.ctx, func() { _ = c.Close() })()
			target, err := r.dial(rule)
			if err != nil {
				relay.Reset(c)
				return
			}
			defer context.AfterFunc(r.ctx, func() { _ = target.Close() })()
			relay.Join(c, target)
		})
	}
}
