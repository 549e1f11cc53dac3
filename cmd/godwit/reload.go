package main

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/client/forward"
	"github.com/godwit-net/godwit/client/front"
	"github.com/godwit-net/godwit/config"
)

// A change is settings that can be changed while everything runs, all of them
// at once.
type change struct {
	keys  []string
	apply func() error
}

// applyChanges does what changed keys ask for and gives those that are in force
// now. It names those that need a new start.
func applyChanges(logger *slog.Logger, role string, changed []string, changes []change) (done []string) {
	ctx := context.Background()
	if len(changed) == 0 {
		logger.LogAttrs(ctx, slog.LevelInfo, "settings read anew: nothing has changed")
		return nil
	}
	rest := slices.Clone(changed)
	for _, c := range changes {
		mine := func(key string) bool { return slices.Contains(c.keys, key) }
		if !slices.ContainsFunc(changed, mine) {
			continue
		}
		rest = slices.DeleteFunc(rest, mine)
		var keys []string
		for _, k := range changed {
			if mine(k) {
				keys = append(keys, k)
			}
		}
		if err := c.apply(); err != nil {
			logger.LogAttrs(ctx, slog.LevelError, "settings not changed", slog.String("keys", strings.Join(keys, ", ")), slog.Any("err", err))
			continue
		}
		done = append(done, keys...)
	}
	if len(done) > 0 {
		logger.LogAttrs(ctx, slog.LevelInfo, "settings changed", slog.String("keys", strings.Join(done, ", ")))
	}
	if len(rest) > 0 {
		logger.LogAttrs(ctx, slog.LevelWarn, "these settings take effect at the next start: stop godwit "+role+" run and start it again",
			slog.String("keys", strings.Join(rest, ", ")))
	}
	return done
}

// notRead logs that new settings are of no use.
func notRead(logger *slog.Logger, err error) {
	logger.LogAttrs(context.Background(), slog.LevelError, "settings not read, the old ones stay in force", slog.Any("err", err))
}

// A liveClient is what of a running client can be changed.
type liveClient struct {
	d        *config.ClientDir
	load     func() (*config.ClientDir, error)
	logger   *slog.Logger
	level    *slog.LevelVar
	client   *client.Client
	forwards *forward.Set
	remote   *forward.Remote
	proxies  *proxies
}

// reload reads the settings anew and changes what can be changed without losing
// a stream.
func (l *liveClient) reload(ctx context.Context) {
	next, err := l.load()
	if err != nil {
		notRead(l.logger, err)
		return
	}
	done := applyChanges(l.logger, "client", l.d.Changed(next), []change{
		{[]string{"log_level"}, func() error { l.level.Set(next.Config.LogLevel); return nil }},
		{[]string{"listen"}, func() error { return l.proxies.move(next.Config.Listen.String()) }},
		{[]string{"early_data"}, func() error { return l.client.SetEarlyData(client.EarlyData(next.Config.EarlyData)) }},
		{[]string{"forward"}, func() error {
			rules, err := forwardRules(next)
			if err != nil {
				return err
			}
			return l.forwards.Update(rules)
		}},
		{[]string{"remote_forward"}, func() error {
			rules, err := remoteRules(next)
			if err == nil {
				l.remote.Update(rules)
			}
			return err
		}},
		{[]string{"tls", "server_name", "http_host", "verify", "fingerprint", "proxy", "plain_http", "websocket_path", "cert_hash"}, func() error {
			c, err := clientConfig(next, l.d.Config.Encapsulations, l.logger)
			if err != nil {
				return err
			}
			return l.client.SetTransports(ctx, c.Transports)
		}},
	})
	l.d.Apply(next, done)
}

// proxies is the client's proxy on the listener it has now.
type proxies struct {
	server  *front.Server
	current net.Listener
	ended   chan<- error // takes the end of a listener that should have gone on
	running chan struct{}
}

// serve takes connections from a listener until another takes its place.
func (p *proxies) serve(ln net.Listener) {
	replaced := make(chan struct{})
	p.current, p.running = ln, replaced
	go func() {
		err := ended("the proxy", ln.Addr(), p.server.Serve(ln))
		select {
		case <-replaced:
		default:
			p.ended <- err
		}
	}()
}

// move listens at another address; streams from the old one go on.
func (p *proxies) move(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return listenError(err, address, "listen in client.toml")
	}
	close(p.running)
	_ = p.current.Close()
	p.serve(ln)
	return nil
}

// A liveServer is what of a running server can be changed.
type liveServer struct {
	d       *config.ServerDir
	load    func() (*config.ServerDir, error)
	logger  *slog.Logger
	level   *slog.LevelVar
	recheck func() // has the server ask again what is allowed
}

// reload reads the settings anew and changes what can be changed without losing
// a stream.
func (l *liveServer) reload() {
	next, err := l.load()
	if err != nil {
		notRead(l.logger, err)
		return
	}
	changed := l.d.Changed(next)
	done := applyChanges(l.logger, "server", changed, []change{
		{[]string{"log_level"}, func() error { l.level.Set(next.Config.LogLevel); return nil }},
		{[]string{"allow", "allow_forward", "endpoint"}, func() error { return nil }}, // Apply does it
	})
	l.d.Apply(next, done)
	if slices.Contains(done, "allow_forward") {
		l.recheck()
	}
}
