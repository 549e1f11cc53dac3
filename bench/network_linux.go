package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// The addresses of the network; every one is the same in the fast and in the
// slow network.
var (
	clientAddr = netip.MustParseAddr("198.51.100.1")
	serverAddr = netip.MustParseAddr("198.51.100.2")
	gateAddr   = netip.MustParseAddr("192.0.2.1") // of the server, to the target
	targetAddr = netip.MustParseAddrPort("192.0.2.10:7000")
	targetNet  = netip.MustParsePrefix("192.0.2.0/24")
	anywhere   = netip.MustParsePrefix("0.0.0.0/0")
)

// proxyAddress is where every peer has its SOCKS5 proxy, in the client's
// namespace.
const proxyAddress = "127.0.0.1:1080"

// A scope stands in for a test where package netns wants one: it collects
// cleanups, and turns the fatal errors of netns into panics that within turns
// back into errors.
type scope struct {
	testing.TB // never called: netns uses what follows
	dir        string
	cleanups   []func()
	problems   []error
}

type fatal struct{ err error }

func (s *scope) Helper()                   {}
func (s *scope) Failed() bool              { return false } // the output of failed peers goes into their errors
func (s *scope) ArtifactDir() string       { return s.dir }
func (s *scope) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }
func (s *scope) Logf(f string, a ...any)   {}
func (s *scope) Errorf(f string, a ...any) { s.problems = append(s.problems, fmt.Errorf(f, a...)) }
func (s *scope) Fatal(a ...any)            { panic(fatal{errors.New(strings.TrimSpace(fmt.Sprintln(a...)))}) }
func (s *scope) Fatalf(f string, a ...any) { panic(fatal{fmt.Errorf(f, a...)}) }

// close runs the cleanups, last to first.
func (s *scope) close() error {
	for len(s.cleanups) > 0 {
		f := s.cleanups[len(s.cleanups)-1]
		s.cleanups = s.cleanups[:len(s.cleanups)-1]
		if err := within(func() error { f(); return nil }); err != nil {
			s.problems = append(s.problems, err)
		}
	}
	return errors.Join(s.problems...)
}

// within calls f and gives fatal errors of netns back.
func within(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case fatal:
			err = p.err
		default:
			panic(p)
		}
	}()
	return f()
}

// A network is client, server and target in a row, each in a namespace.
type network struct {
	lab                    *netns.Lab
	client, server, target *netns.Host
	self                   string       // this program
	relay                  *netns.Relay // between client and server; nil without delay
}

// newNetwork makes a network. Without delay its wires are plain pairs of
// virtual devices with all their offloads; with delay, packets between client
// and server wait that long in each direction in this process.
func newNetwork(ctx context.Context, lab *netns.Lab, name, congestion string, delay time.Duration) (n *network, err error) {
	n = &network{lab: lab}
	if n.self, err = os.Executable(); err != nil {
		return nil, err
	}
	n.client, n.server, n.target = lab.Host(name+"-client"), lab.Host(name+"-server"), lab.Host(name+"-target")
	if congestion != "" {
		for _, h := range []*netns.Host{n.client, n.server, n.target} {
			err := within(func() error { h.Sysctl("net.ipv4.tcp_congestion_control", congestion); return nil })
			switch {
			case err != nil && strings.Contains(err.Error(), "not permitted"): // netns gives the cause as text
				return nil, fmt.Errorf("-congestion %s: the kernel allows it outside of namespaces only; add it to net.ipv4.tcp_allowed_congestion_control", congestion)
			case err != nil:
				return nil, fmt.Errorf("-congestion %s: the kernel does not know it: %w", congestion, err)
			}
		}
	}
	a := netns.Port{Host: n.client, Dev: "wan", Addrs: []netip.Prefix{netip.PrefixFrom(clientAddr, 24)}}
	b := netns.Port{Host: n.server, Dev: "wan", Addrs: []netip.Prefix{netip.PrefixFrom(serverAddr, 24)}}
	if delay > 0 {
		n.relay = lab.Relay(a, b, delay)
	} else if err := plainWire(ctx, a, b); err != nil {
		return nil, err
	}
	c := netns.Port{Host: n.server, Dev: "inside", Addrs: []netip.Prefix{netip.PrefixFrom(gateAddr, 24)}}
	d := netns.Port{Host: n.target, Dev: "inside", Addrs: []netip.Prefix{netip.PrefixFrom(targetAddr.Addr(), 24)}}
	if err := plainWire(ctx, c, d); err != nil {
		return nil, err
	}
	// For the peers that leave the way to the target to the kernel.
	n.server.Forward()
	n.client.Route(anywhere, serverAddr, "wan", 0)
	n.target.Route(anywhere, gateAddr, "inside", 0)
	target := n.start(n.target, "target", n.self, targetWord, targetAddr.String())
	return n, expect(ctx, target.Stdout, "ready")
}

// plainWire joins two hosts by a pair of virtual devices as the kernel makes
// them. Lab.Wire would take their offloads away.
func plainWire(ctx context.Context, a, b netns.Port) error {
	out, err := exec.CommandContext(ctx, "ip", "link", "add", a.Dev, "netns", a.Host.NS, "type", "veth",
		"peer", "name", b.Dev, "netns", b.Host.NS).CombinedOutput()
	if err != nil {
		return fmt.Errorf("join %s and %s: %w: %s", a.Host.Name, b.Host.Name, err, out)
	}
	for _, p := range []netns.Port{a, b} {
		p.Host.Address(p.Dev, p.Addrs...)
		p.Host.Up(p.Dev)
	}
	return nil
}

// start starts a program in a namespace, with its log called after label.
func (n *network) start(h *netns.Host, label, program string, args ...string) *netns.Process {
	return n.lab.Start(label, h.Command(program, args...))
}

// run runs a program in a namespace to its end and gives what it printed.
func (n *network) run(ctx context.Context, h *netns.Host, program string, args ...string) (string, error) {
	cmd := h.Command(program, args...)
	cmd = exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s does not end: %w", label(program, args), ctx.Err())
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", label(program, args), explain(err))
	}
	return string(out), nil
}

// load runs this program's own client beside the peer's and reads the result
// that it prints.
func (n *network) load(ctx context.Context, result any, args ...string) error {
	out, err := n.run(ctx, n.client, n.self, append([]string{loadWord}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), result); err != nil {
		return fmt.Errorf("result of the load: %w", err)
	}
	return nil
}

// label is how errors call a program: without the folder, and without secrets
// that may be among its arguments.
func label(program string, args []string) string {
	name := program[strings.LastIndexByte(program, '/')+1:]
	for _, a := range args {
		if strings.HasPrefix(a, "-") || len(a) > 16 {
			break
		}
		name += " " + strings.TrimPrefix(a, "@")
	}
	return name
}

// expect waits a bounded time for a text in a program's output.
func expect(ctx context.Context, o *netns.Output, text string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return o.Expect(ctx, text)
}
