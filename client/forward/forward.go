// Package forward makes targets behind the tunnel reachable at ports of this
// machine, for programs that know no proxies.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	host, port, err := net.SplitHostPort(f[2])
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" || len(host) > 255 {
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
	c         Config
	ctx       context.Context
	stop      context.CancelFunc
	listeners []net.Listener
	sockets   []net.PacketConn
	wg        sync.WaitGroup
}

// Listen binds all ports and serves them until Close. The error names the rule
// whose port cannot be had.
func Listen(c Config) (*Set, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Set{c: c}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, r := range c.Rules {
		var err error
		if r.Network == "udp" {
			var pc net.PacketConn
			if pc, err = net.ListenPacket("udp", r.Listen.String()); err == nil {
				s.sockets = append(s.sockets, pc)
				s.wg.Go(func() { s.datagrams(pc, r) })
			}
		} else {
			var ln net.Listener
			if ln, err = net.Listen("tcp", r.Listen.String()); err == nil {
				s.listeners = append(s.listeners, ln)
				s.wg.Go(func() { s.streams(ln, r) })
			}
		}
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("forward %s: %w", r, err)
		}
	}
	return s, nil
}

// Close ends the ports and what goes through them, and waits for that.
func (s *Set) Close() {
	s.stop()
	for _, ln := range s.listeners {
		_ = ln.Close()
	}
	for _, pc := range s.sockets {
		_ = pc.Close()
	}
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
		if l, ok := c.(relay.Lingerer); ok {
			_ = l.SetLinger(0)
		}
		_ = c.Close()
		return
	}
	defer context.AfterFunc(s.ctx, func() { _ = remote.Close() })()
	relay.Join(c, remote)
}

const (
	maxDatagram = 1<<16 - 1
	// maxFlows bounds the sources of one UDP port that are served at a time.
	maxFlows = 256
	// flowIdle ends what is served for one that says nothing (RFC 4787, Section
	// 4.3).
	flowIdle = 5 * time.Minute
)

// A flow is one source of datagrams at a port.
type flow struct {
	far  net.Conn
	used atomic.Int64 // Unix nanoseconds
}

// datagrams serves one UDP port.
func (s *Set) datagrams(pc net.PacketConn, r Rule) {
	to, err := statute.NewDatagram(r.Target, nil)
	if err != nil {
		s.c.Logger.LogAttrs(s.ctx, slog.LevelError, "forward cannot be used", slog.String("forward", r.String()), slog.Any("err", err))
		return
	}
	head := to.Header()
	var mu sync.Mutex
	flows := make(map[netip.AddrPort]*flow)
	b := make([]byte, len(head)+maxDatagram)
	copy(b, head)
	for {
		n, from, err := pc.ReadFrom(b[len(head):])
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				break
			}
			continue
		}
		at := from.(*net.UDPAddr).AddrPort()
		mu.Lock()
		f, count := flows[at], len(flows)
		mu.Unlock()
		if f == nil {
			if count >= maxFlows {
				continue
			}
			far, err := s.c.Associate(s.ctx)
			if err != nil {
				s.c.Logger.LogAttrs(s.ctx, slog.LevelDebug, "forward has no way", slog.String("forward", r.String()), slog.Any("err", err))
				continue
			}
			f = &flow{far: far}
			mu.Lock()
			flows[at] = f
			mu.Unlock()
			s.wg.Go(func() {
				s.answers(pc, f, from)
				mu.Lock()
				delete(flows, at)
				mu.Unlock()
			})
		}
		f.used.Store(time.Now().UnixNano())
		_, _ = f.far.Write(b[:len(head)+n])
	}
	mu.Lock()
	defer mu.Unlock()
	for _, f := range flows {
		_ = f.far.Close()
	}
}

// answers brings a flow's answers to its source until nothing has come either
// way for flowIdle.
func (s *Set) answers(pc net.PacketConn, f *flow, to net.Addr) {
	defer f.far.Close()
	b := make([]byte, maxDatagram)
	f.used.Store(time.Now().UnixNano())
	for {
		_ = f.far.SetReadDeadline(time.Unix(0, f.used.Load()).Add(flowIdle))
		n, err := f.far.Read(b)
		var ne net.Error
		switch {
		case err == nil:
			f.used.Store(time.Now().UnixNano())
			if d, err := statute.ParseDatagram(b[:n]); err == nil {
				_, _ = pc.WriteTo(d.Data, to)
			}
		case errors.As(err, &ne) && ne.Timeout():
			if time.Since(time.Unix(0, f.used.Load())) >= flowIdle {
				return
			}
		case errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil:
			return
		default:
			// The other end of the tunnel may refuse; that is not for good.
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
		}
	}
}
