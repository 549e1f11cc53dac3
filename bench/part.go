package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/godwit-net/godwit/bench/load"
	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/http"
	"github.com/godwit-net/godwit/transports/system"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/web"
	"github.com/godwit-net/godwit/transports/websocket"
)

// The first arguments by which this program runs itself in a namespace.
const (
	targetWord  = "@target"
	relayWord   = "@relay"
	forwardWord = "@forward"
	loadWord    = "@load"
	clientsWord = "@clients"
)

// part runs the part that the first argument names until its work is done, its
// input says so, or ctx ends.
func part(ctx context.Context, args []string, stdout io.Writer) error {
	word, args := args[0], args[1:]
	switch word {
	case targetWord, relayWord, forwardWord:
		if want := map[string]int{forwardWord: 2}[word]; len(args) != max(want, 1) {
			return errors.New("want an address to listen on, and for a forwarder one to lead to")
		}
		ln, err := net.Listen("tcp", args[0])
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, "ready")
		switch word {
		case relayWord:
			return load.Relay(ctx, ln)
		case forwardWord:
			return load.Forward(ctx, ln, args[1])
		}
		return load.Serve(ctx, ln)
	case loadWord:
		return loadPart(ctx, args, stdout)
	case clientsWord:
		return clientsPart(ctx, args, stdout)
	}
	return errors.New("no such part")
}

// loadPart is the load's client in the client's namespace: it prints one
// result in JSON.
func loadPart(ctx context.Context, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet(loadWord, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	proxy := f.String("proxy", "127.0.0.1:1080", "")
	to := f.String("target", "192.0.2.10:7000", "")
	do := f.String("do", "", "")
	streams := f.Int("streams", 1, "")
	count := f.Uint64("bytes", 0, "")
	limit := f.Duration("limit", 30*time.Second, "")
	pace := f.Duration("pace", 0, "")
	direct := f.Bool("direct", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(*to)
	if err != nil {
		return err
	}
	dial := load.Through(*proxy, target)
	if *direct {
		dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", target.String())
		}
	}
	// Beyond the limit a transfer may still have to come to its end.
	ctx, cancel := context.WithTimeout(ctx, *limit+20*time.Second)
	defer cancel()
	var result any
	switch *do {
	case "down":
		result, err = load.Bulk(ctx, dial, load.Down, *streams, *count, *limit)
	case "up":
		result, err = load.Bulk(ctx, dial, load.Up, *streams, *count, *limit)
	case "ping":
		result, err = load.Ping(ctx, dial, *pace, *limit)
	case "first":
		result, err = load.FirstBytes(ctx, dial, *streams)
	case "hold":
		return load.Hold(ctx, dial, *streams, func() { fmt.Fprintln(stdout, "ready") })
	case "probe":
		result, err = true, load.Probe(ctx, dial)
	default:
		return fmt.Errorf("no load is called %q", *do)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(result)
}

// clientsPart runs many clients of godwit in one process: those whose folders
// are in a folder. Only their cost at the server is of interest.
func clientsPart(ctx context.Context, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet(clientsWord, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	dir := f.String("dir", "", "")
	encapsulation := f.String("encapsulation", "udp", "")
	each := f.Int("each", 0, "")
	to := f.String("target", "192.0.2.10:7000", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(*dir, "*"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		running sync.WaitGroup
		failed  = make(chan error, 2*len(dirs))
	)
	defer running.Wait()
	defer cancel()
	for _, d := range dirs {
		c, err := newClient(d, transports.Name(*encapsulation))
		if err != nil {
			return err
		}
		running.Go(func() {
			if err := c.Run(ctx); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
		// One after the other: what a storm of first connections costs is
		// another question.
		select {
		case <-c.Ready():
		case err := <-failed:
			return fmt.Errorf("client %s: %w", filepath.Base(d), err)
		case <-ctx.Done():
			return ctx.Err()
		}
		if *each == 0 {
			continue
		}
		dial := func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, "tcp", *to) }
		held := make(chan struct{})
		running.Go(func() {
			if err := load.Hold(ctx, dial, *each, func() { close(held) }); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
		select {
		case <-held:
		case err := <-failed:
			return fmt.Errorf("streams of client %s: %w", filepath.Base(d), err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Fprintln(stdout, "ready")
	<-ctx.Done()
	return nil
}

// newClient makes a client from a folder that client join made.
func newClient(dir string, encapsulation transports.Name) (*client.Client, error) {
	d, err := config.LoadClient(dir)
	if err != nil {
		return nil, err
	}
	c := client.Config{
		Logger: slog.New(slog.DiscardHandler), Network: system.New(),
		Server: d.Config.Server, ServerKey: d.Config.ServerKey, PrivateKey: d.Key,
	}
	switch encapsulation {
	case transports.UDP:
		c.Transports = []transports.Transport{udp.New(udp.Options{})}
	case transports.TCP:
		c.Transports = []transports.Transport{tcp.New()}
	case transports.WebSocket, transports.HTTP:
		host, _, err := net.SplitHostPort(d.Config.Server)
		if err != nil {
			return nil, err
		}
		o := web.Options{TLS: true, ServerName: host, Path: d.Config.WebSocketPath, CertHash: d.Config.CertHash}
		t := websocket.New(o)
		if encapsulation == transports.HTTP {
			t = http.New(http.Options{Options: o})
		}
		c.Transports = []transports.Transport{t}
	default:
		return nil, fmt.Errorf("no encapsulation is called %q", encapsulation)
	}
	return client.New(c)
}
