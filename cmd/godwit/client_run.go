package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/client/forward"
	"github.com/godwit-net/godwit/client/front"
	"github.com/godwit-net/godwit/client/statuspage"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/mobility/places"
)

// networksFile is the file in a client's folder that remembers what worked at
// which network.
const networksFile = "networks.json"

// How often a user hears that the server is still out of reach: first after
// patience, then at twice the time, up to longestPatience.
const (
	patience        = 3 * time.Second
	longestPatience = time.Minute
)

func newClientRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the client and its SOCKS5 and HTTP proxy until it is told to stop",
		Example: `  godwit client run --listen 127.0.0.1:1081
  sudo godwit client run --tun --kill-switch --tun-exclude 203.0.113.5`,
		Args: takes(),
	}
	dir, settings := dirFlag(cmd, "client"), settingFlags(cmd, "client")
	profiled := profileFlag(cmd)
	ikeLife, childLife := lifetimeFlags(cmd)
	keys := keyLogFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		stop, err := setUp(*profiled)
		if err != nil {
			return err
		}
		defer stop()
		d, err := loadClient(dir, settings()...)
		if err != nil {
			return flagError(cmd, err)
		}
		level := new(slog.LevelVar)
		level.Set(d.Config.LogLevel)
		logger := newLogger(cmd, level)
		live := &liveClient{d: d, logger: logger, level: level, load: func() (*config.ClientDir, error) { return loadClient(dir, settings()...) }}
		return runClient(cmd, live, func(c *client.Config) error {
			c.IKELifetime, c.ChildLifetime = *ikeLife, *childLife
			c.KeyLog, err = openKeyLog(*keys, logger)
			return err
		})
	}
	return cmd
}

// runClient runs a client with its proxy and its control socket; adjust does
// what flags say.
func runClient(cmd *cobra.Command, live *liveClient, adjust func(*client.Config) error) (err error) {
	d, logger := live.d, live.logger
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()

	// A second client of the same folder is told so before it trips over the
	// first one's port.
	socket := filepath.Join(d.Path(), controlSocket)
	if err := checkNotRunning(ctx, "client", socket); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", d.Config.Listen.String())
	if err != nil {
		return listenError(err, d.Config.Listen.String(), "--listen")
	}
	defer ln.Close()

	cc, err := clientConfig(d, d.Config.Encapsulations, logger)
	if err != nil {
		return err
	}
	if err := adjust(&cc); err != nil {
		return err
	}
	cc.Places = places.Open(filepath.Join(d.Path(), networksFile), logger)
	defer cc.Places.Close()
	stopWatching := watchNetwork(ctx, &cc, logger)
	defer func() { cancel(); stopWatching() }()
	outsideOf(d).lead(&cc)
	c, err := client.New(cc)
	if err != nil {
		return &config.Error{What: "cannot start: " + lastCause(err), Where: d.Path(), Do: "correct client.toml, or join again", Err: err}
	}
	whole, err := openMachine(d, c, logger)
	if err != nil {
		return err
	}
	defer func() { err = whole.close(d, err) }()
	shown := wholeClient{c, whole.status(c.Status)}
	control, err := clientControl(socket, shown.Status, c)
	if err != nil {
		return err
	}
	defer control.close()

	forwards, err := listenForwards(d, c, logger)
	if err != nil {
		return err
	}
	defer forwards.Close()

	remote, err := startRemote(d, c, logger)
	if err != nil {
		return err
	}
	defer remote.Close()

	bypass, err := bypassOf(d)
	if err != nil {
		return err
	}
	proxy := front.New(front.Config{Dial: c.Dial, Associate: c.Associate, Pages: statuspage.New(shown), Bypass: bypass, Logger: logger})
	results := make(chan error, 2)
	running := 2
	ports := &proxies{server: proxy, ended: results}
	ports.serve(ln)
	live.client, live.forwards, live.remote, live.proxies = c, forwards, remote, ports
	hangup, stopHangups := hangups()
	defer stopHangups()
	go func() { results <- clientEnded(c.Run(ctx), d.Config.Server) }()
	// The client says goodbye to the server before this returns.
	defer func() {
		cancel()
		_ = proxy.Close()
		for ; running > 0; running-- {
			<-results
		}
	}()

	wait := patience
	again := time.NewTimer(wait)
	defer again.Stop()
	ready := c.Ready()
	for {
		select {
		case <-ready:
			ready = nil
			again.Stop()
			if err := whole.take(d); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), readyLine(c.Status(), ports.current.Addr()))
		case <-again.C:
			fmt.Fprintln(cmd.ErrOrStderr(), "godwit: "+notYet(c.Status(), d.Config.Server))
			wait = min(2*wait, longestPatience)
			again.Reset(wait)
		case err := <-results:
			running--
			return err
		case <-hangup:
			live.reload(ctx)
		case err := <-whole.failed():
			return machineError(d, err)
		case <-ctx.Done():
			return nil
		}
	}
}

// forwardRules reads what client.toml has lead elsewhere.
func forwardRules(d *config.ClientDir) ([]forward.Rule, error) {
	var rules []forward.Rule
	for _, text := range d.Config.Forward {
		r, err := forward.Parse(text)
		if err != nil {
			return nil, &config.Error{What: err.Error(), Where: d.Where("forward"), Do: `write it as "tcp 127.0.0.1:2222 git.example.org:22"`, Err: err}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// bypassOf gives what browsers reach without the proxy.
func bypassOf(d *config.ClientDir) (front.Bypass, error) {
	b, err := front.ParseBypass(d.Config.Bypass)
	if err != nil {
		return b, &config.Error{What: err.Error(), Where: d.Where("bypass"), Do: `write names, "*.intranet.example.org", addresses, or ranges of IPv4`, Err: err}
	}
	return b, nil
}

// listenForwards opens the ports that client.toml has lead elsewhere.
func listenForwards(d *config.ClientDir, c *client.Client, logger *slog.Logger) (*forward.Set, error) {
	rules, err := forwardRules(d)
	if err != nil {
		return nil, err
	}
	fc := forward.Config{Rules: rules, Dial: c.Dial, Associate: c.Associate, Logger: logger}
	s, err := forward.Listen(fc)
	if err != nil {
		return nil, &config.Error{What: err.Error(), Where: d.Where("forward"), Do: "use another port, or end the program that has it", Err: err}
	}
	return s, nil
}

// remoteRules reads what client.toml has the server lead here.
func remoteRules(d *config.ClientDir) ([]forward.RemoteRule, error) {
	var rules []forward.RemoteRule
	for _, text := range d.Config.RemoteForward {
		r, err := forward.ParseRemote(text)
		if err != nil {
			return nil, &config.Error{What: err.Error(), Where: d.Where("remote_forward"), Do: `write it as "tcp [::]:8080 127.0.0.1:3000"`, Err: err}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// startRemote asks the server for the ports that client.toml has lead here.
func startRemote(d *config.ClientDir, c *client.Client, logger *slog.Logger) (*forward.Remote, error) {
	rules, err := remoteRules(d)
	if err != nil {
		return nil, err
	}
	return forward.StartRemote(forward.RemoteConfig{
		Rules:  rules,
		Open:   func(ctx context.Context) (forward.Inside, error) { return c.Inside(ctx) },
		Logger: logger,
	}), nil
}

// ended makes an error of the end of something that should have gone on.
func ended(what string, address net.Addr, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return &config.Error{What: what + " ended: " + lastCause(err), Where: address.String(), Do: "see the log above and start it again", Err: err}
}

// clientEnded makes an error of what Client.Run gave; nil stands for an end
// that was asked for.
func clientEnded(err error, server string) error {
	var n *ike.NotifyError
	var refused *client.RefusedError
	if !errors.As(err, &refused) && errors.As(err, &n) {
		return &config.Error{What: "the server refuses the connection: " + n.Error(), Where: server, Do: "use the same version of godwit on both sides", Err: err}
	}
	return err
}

// notYet tells that there is no link, and why as far as is known.
func notYet(s client.Status, server string) string {
	why := "no answer by any encapsulation"
	if s.LastError != "" {
		why = strings.Join(strings.Fields(s.LastError), " ")
	}
	return fmt.Sprintf("the server is not reachable yet, %s: still trying (%s)", server, why)
}

// readyLine is the one line that tells scripts and people to go on.
func readyLine(s client.Status, proxy net.Addr) string {
	line := fmt.Sprintf("godwit client ready: SOCKS5 and HTTP proxy on %s, inner address %s", proxy, strings.Join(s.Inner, " and "))
	if s.Path != nil {
		line += fmt.Sprintf(", path %s to %s", s.Path.Encapsulation, s.Path.Remote)
	}
	if a, ok := proxy.(*net.TCPAddr); ok {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.Unmap().IsLoopback() {
			line += "; any host that reaches it may use it"
		}
	}
	return line
}
