package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// A peer is a program, or a pair of them, that gets SOCKS5 connections from
// the client's namespace to the target by way of the server's.
type peer struct {
	name  string
	about string // version and set-up, for the reader of the table
	// encapsulation is that of godwit; "" for the others.
	encapsulation string

	install func(ctx context.Context, in *installer) error
	start   func(ctx context.Context, s *site) error
	// another starts a second client of the same server, and gives its proxy's
	// address. Nil where that is not prepared.
	another func(ctx context.Context, s *site) (proxy string, err error)
}

// An installer installs what peers need and remembers where it is.
type installer struct {
	cache    string
	log      *slog.Logger
	programs map[string]string
	about    map[string]string // by peer, what only the installation can tell
}

func (in *installer) build(ctx context.Context, ps ...goPeer) error {
	for _, p := range ps {
		path, err := p.install(ctx, in.cache, in.log)
		if err != nil {
			return fmt.Errorf("%s %s: %w", p.module, p.version, err)
		}
		in.programs[p.name] = path
	}
	return nil
}

// A site is a network in which one peer runs.
type site struct {
	*network
	programs map[string]string
	dir      string // for keys and settings of this start
	profiles string // folder for CPU profiles; "" for none
	tag      string // in the names of profiles

	clients, servers []*netns.Process
	undo             []func()
}

// runClient and runServer start the peer's programs. All that such a process
// and its descendants use counts for the peer.
func (s *site) runClient(label, program string, args ...string) *netns.Process {
	p := s.network.start(s.client, label, program, args...)
	s.clients = append(s.clients, p)
	return p
}

func (s *site) runServer(label, program string, args ...string) *netns.Process {
	p := s.network.start(s.server, label, program, args...)
	s.servers = append(s.servers, p)
	return p
}

// file writes a file of settings and gives its path.
func (s *site) file(name, content string) (string, error) {
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

func pids(ps []*netns.Process) (ids []int) {
	for _, p := range ps {
		ids = append(ids, p.Pid())
	}
	return ids
}

// open starts a peer and waits until the target answers through it.
func open(ctx context.Context, n *network, p *peer, in *installer, profiles, tag string) (*site, error) {
	dir, err := os.MkdirTemp("", "godwit-bench-"+p.name)
	if err != nil {
		return nil, err
	}
	s := &site{network: n, programs: in.programs, dir: dir, profiles: profiles, tag: tag}
	err = within(func() error { return p.start(ctx, s) })
	if err == nil {
		probe, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		var ok bool
		err = n.load(probe, &ok, "-do", "probe", "-limit", "15s")
	}
	if err != nil {
		err = fmt.Errorf("start %s: %w%s", p.name, err, s.said())
		s.close()
		return nil, err
	}
	return s, nil
}

// said gives the last words of the peer's programs.
func (s *site) said() (words string) {
	for _, p := range append(s.servers[:len(s.servers):len(s.servers)], s.clients...) {
		text := strings.TrimSpace(p.Stdout.String() + "\n" + p.Stderr.String())
		if i := strings.LastIndexByte(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
		if text != "" {
			words += "; " + text
		}
	}
	return words
}

// close ends the peer: politely, so that profiles are written, then by force.
func (s *site) close() {
	ps := append(s.clients[:len(s.clients):len(s.clients)], s.servers...)
	for _, p := range ps {
		_ = p.Signal(syscall.SIGTERM)
		select {
		case <-p.Done():
		case <-time.After(3 * time.Second):
			p.Kill()
		}
	}
	for len(s.undo) > 0 {
		s.undo[len(s.undo)-1]()
		s.undo = s.undo[:len(s.undo)-1]
	}
	os.RemoveAll(s.dir)
}

// allPeers are the peers there are, in the order of the table.
func allPeers() []*peer {
	return []*peer{
		godwit("godwit", "udp"),
		godwit("godwit-tcp", "tcp"),
		godwit("godwit-websocket", "websocket"),
		godwit("godwit-http", "http"),
		relayPeer(), socksPeer(), sshPeer(), xrayPeer(), chiselPeer(), hysteriaPeer(), wireproxyPeer(),
	}
}

// defaultPeers are those that run when nobody says which.
const defaultPeers = "godwit,none,socks,ssh,xray,chisel,hysteria,wireproxy"

// godwit runs this repository's program over one encapsulation.
func godwit(name, encapsulation string) *peer {
	return &peer{
		name:          name,
		about:         "this repository, --encapsulations " + encapsulation,
		encapsulation: encapsulation,
		start: func(ctx context.Context, s *site) error {
			program := s.programs["godwit"]
			serverDir := filepath.Join(s.dir, "server")
			endpoint := serverAddr.String() + ":443"
			if _, err := s.run(ctx, s.server, program, "server", "init", "--endpoint", endpoint, "--listen", endpoint,
				"--allow", targetNet.String(), "--dir", serverDir); err != nil {
				return err
			}
			server := s.runServer(name+"-server", program, s.profile("server", name, "server", "run", "--dir", serverDir)...)
			if err := expect(ctx, server.Stdout, "ready"); err != nil {
				return err
			}
			return s.godwitClient(ctx, name, encapsulation, proxyAddress)
		},
		another: func(ctx context.Context, s *site) (string, error) {
			return anotherAddress, s.godwitClient(ctx, name+"-another", encapsulation, anotherAddress)
		},
	}
}

// anotherAddress is where a second client has its proxy.
const anotherAddress = "127.0.0.1:1081"

// godwitClient invites a client to the server in the site and starts it.
func (s *site) godwitClient(ctx context.Context, name, encapsulation, proxy string) error {
	program := s.programs["godwit"]
	dir := filepath.Join(s.dir, name)
	link, err := s.run(ctx, s.server, program, "server", "invite", name, "--dir", filepath.Join(s.dir, "server"))
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, s.client, program, "client", "join", strings.TrimSpace(link), "--dir", dir, "--offline"); err != nil {
		return err
	}
	client := s.runClient(name+"-client", program, s.profile("client", name, "client", "run", "--dir", dir,
		"--listen", proxy, "--encapsulations", encapsulation)...)
	return expect(ctx, client.Stdout, "ready")
}

// profile adds the flag for a CPU profile, if one is wanted.
func (s *site) profile(side, name string, args ...string) []string {
	if s.profiles == "" {
		return args
	}
	return append(args, "--cpuprofile", filepath.Join(s.profiles, name+"-"+side+"-"+s.tag+".pprof"))
}

// relayPeer is the limit: no tunnel at all.
func relayPeer() *peer {
	return &peer{
		name:  "none",
		about: "no tunnel: one SOCKS5 relay that copies in user space; the server only forwards packets",
		start: func(ctx context.Context, s *site) error {
			p := s.runClient("none-client", s.self, relayWord, proxyAddress)
			return expect(ctx, p.Stdout, "ready")
		},
	}
}

// socksPeer is a SOCKS5 proxy at the server, in the clear.
func socksPeer() *peer {
	return &peer{
		name:  "socks",
		about: "plain SOCKS5 at the server, in the clear; the client's port leads there",
		start: func(ctx context.Context, s *site) error {
			at := netip.AddrPortFrom(serverAddr, 1080).String()
			server := s.runServer("socks-server", s.self, relayWord, at)
			if err := expect(ctx, server.Stdout, "ready"); err != nil {
				return err
			}
			p := s.runClient("socks-client", s.self, forwardWord, proxyAddress, at)
			return expect(ctx, p.Stdout, "ready")
		},
	}
}
