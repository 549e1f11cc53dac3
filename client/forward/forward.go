// Package forward makes targets behind the tunnel reachable at ports of this
// machine, for programs that know no proxies.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/things-go/go-socks5/statute"

	"github.com/godwit-net/godwit/tunnel/relay"
)

// A Rule is one port of this machine and where it leads.
type Rule struct {
	Network string // tcp or udp
	Listen  netip.AddrPort
	Target  string // host:port; names are resolved at the server
}

// String is what Parse reads.
func (r Rule) String() string { return r.Network + " " + r.Listen.String() + " " + r.Target }

// Parse reads a rule such as "tcp 127.0.0.1:2222 git.example.org:22".
func Parse(s string) (Rule, error) {
	f := strings.Fields(s)
	if len(f) != 3 || f[0] != "tcp" && f[0] != "udp" {
		return Rule{}, fmt.Errorf("%q is not of the form: tcp or udp, address and port here, host and port there", s)
	}
	at, err := netip.ParseAddrPort(f[1])
	if err != nil {
		return Rule{}, fmt.Errorf("%q is not an address and a port of this machine", f[1])
	}
	if !isTarget(f[2]) {
		return Rule{}, fmt.Errorf("%q is not a host and a port", f[2])
	}
	return Rule{Network: f[0], Listen: at, Target: f[2]}, nil
}

// Config says how targets are reached.
type Config struct {
	Rules []Rule
	// Dial opens a connection through the tunnel; network is "tcp".
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Associate opens a way for datagrams with the header of RFC 1928, Section 7.
	Associate func(ctx context.Context) (net.Conn, error)
	Logger    *slog.Logger // nil discards
}

// A Set is the ports of some rules.
type Set struct {
	c    Config
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	open map[Rule]io.Closer
}

// Listen binds all ports and serves them until Close. The error names the rule
// whose port cannot be had.
func Listen(c Config) (*Set, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Set{c: c, open: map[Rule]io.Closer{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if err := s.Update(c.Rules); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Update has other rules from now on. Ports of rules that stay are not touched,
// and streams that are open go on. If a port cannot be had nothing changes, and
// the error names its rule.
func (s *Set) Update(rules []Rule) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[Rule]io.Closer{}
	var fresh []func()
	for _, r := range rules {
		if c := s.open[r]; c != nil {
			next[r] = c
			continue
		}
		serve, c, err := s.listen(r)
		if err != nil {
			for r, c := range next {
				if s.open[r] == nil {
					_ = c.Close()
				}
			}
			return fmt.Errorf("forward %s: %w", r, err)
		}
		next[r] = c
		fresh = append(fresh, serve)
	}
	for r, c := range s.open {
		if next[r] == nil {
			_ = c.Close()
		}
	}
	s.open = next
	for _, serve := range fresh {
		s.wg.Go(serve)
	}
	return nil
}

// listen binds the port of a rule.
func (s *Set) listen(r Rule) (serve func(), c io.Closer, err error) {
	if r.Network == "udp" {
		pc, err := net.ListenPacket("udp", r.Listen.String())
		return func() { s.datagrams(pc, r) }, pc, err
	}
	ln, err := net.Listen("tcp", r.Listen.String())
	return func() { s.streams(ln, r) }, ln, err
}

// Close ends the ports and what goes through them, and waits for that.
func (s *Set) Close() {
	s.stop()
	s.mu.Lock()
	for _, c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Set) streams(ln net.Listener, r Rule) {
	for {
		c, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.c.Logger.LogAttrs(s.ctx, slog.LevelWarn, "cannot accept a connection", slog.String("forward", r.String()), slog.Any("err", err))
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.wg.Go(func() { s.stream(c, r) })
	}
}

func (s *Set) stream(c net.Conn, r Rule) {
	defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
	remote, err := s.c.Dial(s.ctx, "tcp", r.Target)
	if err != nil {
		s.c.Logger.LogAttrs(s.ctx, slog.LevelInfo, "forward has no target", slog.String("forward", r.String()), slog.Any("err", err))
		// Nothing was exchanged; a reset says that nobody is there.
		relay.Reset(c)
		return
	}
	defer context.AfterFunc(s.ctx, func() { _ = remote.Close() })()
	relay.Join(c, remote)
}

// maxFlows bounds the sources of one UDP port that are served at a time.
const maxFlows = 256

// datagrams serves one UDP port.
func (s *Set) datagrams(pc net.PacketConn, r Rule) {
	to, err := statute.NewDatagram(r.Target, nil)
	if err != nil {
		s.c.Logger.LogAttrs(s.ctx, slog.LevelError, "forward cannot be used", slog.String("forward", r.String()), slog.Any("err", err))
		return
	}
	relay.Flows{Max: maxFlows, Dial: func() (net.Conn, error) {
		far, err := s.c.Associate(s.ctx)
		if err != nil {
			s.c.Logger.LogAttrs(s.ctx, slog.LevelDebug, "forward has no way", slog.String("forward", r.String()), slog.Any("err", err))
			return nil, err
		}
		return &headed{Conn: far, head: to.Header()}, nil
	}}.Serve(pc)
}

// headed is a socket of the datagram service: what is written gets the header of
// RFC 1928, Section 7, and what is read loses it. One goroutine writes.
type headed struct {
	net.Conn
	head []byte
	out  []byte
}

func (h *headed) Write(b []byte) (int, error) {
	h.out = append(append(h.out[:0], h.head...), b...)
	_, err := h.Conn.Write(h.out)
	return len(b), err
}

func (h *headed) Read(b []byte) (int, error) {
	for {
		n, err := h.Conn.Read(b)
		if err != nil {
			return 0, err
		}
		if d, err := statute.ParseDatagram(b[:n]); err == nil {
			return copy(b, d.Data), nil
		}
	}
}
