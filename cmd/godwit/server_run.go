package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
	"github.com/godwit-net/godwit/server/egress"
)

func newServerRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the server until it is told to stop",
		Args:  takes(),
	}
	dir, settings := dirFlag(cmd, "server"), settingFlags(cmd, "server")
	profiled := profileFlag(cmd)
	ikeLife, childLife := lifetimeFlags(cmd)
	keys := keyLogFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		stop, err := setUp(*profiled)
		if err != nil {
			return err
		}
		defer stop()
		d, err := loadServer(dir, settings()...)
		if err != nil {
			return flagError(cmd, err)
		}
		level := new(slog.LevelVar)
		level.Set(d.Config.LogLevel)
		logger := newLogger(cmd, level)
		d.Logger = logger
		sc := serverConfig(d, logger)
		policy := egressPolicy(d)
		names := egress.NameServer{Gateways: sc.Gateways(), Resolver: netip.AddrPortFrom(config.SystemResolver(), 53)}
		sc.Egress = names.Dial((&egress.Dialer{Policy: policy}).DialContext)
		sc.Datagrams = &egress.Datagrams{Policy: policy, Names: names, Logger: logger}
		sc.IKELifetime, sc.ChildLifetime = *ikeLife, *childLife
		if sc.KeyLog, err = openKeyLog(*keys, logger); err != nil {
			return err
		}
		content, err := setWeb(&sc, d, logger)
		if err != nil {
			return err
		}
		defer content.Close()
		if sc.Guests, err = guestsConfig(d, logger); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		if err := keepCertificate(ctx, &sc, d, logger); err != nil {
			cancel()
			return err
		}
		joined, written := recordJoined(ctx, d, logger)
		defer func() { cancel(); <-written }()
		sc.Joined = joined
		s, err := server.New(sc)
		if err != nil {
			return listenError(err, d.Config.Listen.String(), "listen in server.toml")
		}
		metrics, err := listenMetrics(d, s.Status, logger)
		if err != nil {
			_ = s.Close()
			return err
		}
		defer metrics.close()
		defer listenServerControl(filepath.Join(d.Path(), controlSocket), s.Status, logger).close()
		fmt.Fprintf(cmd.OutOrStdout(), "godwit server ready on %s (%s), clients dial %s\n",
			s.Addr(), strings.Join(d.Config.Encapsulations, ", "), d.Config.Endpoint)
		live := &liveServer{d: d, logger: logger, level: level, recheck: s.Recheck, load: func() (*config.ServerDir, error) { return loadServer(dir, settings()...) }}
		hangup, stopHangups := hangups()
		reloaded := make(chan struct{})
		defer func() { cancel(); stopHangups(); <-reloaded }()
		go func() {
			defer close(reloaded)
			for {
				select {
				case <-hangup:
					live.reload()
				case <-ctx.Done():
					return
				}
			}
		}()
		if err := s.Run(ctx); err != nil {
			return &config.Error{What: "the server ended: " + lastCause(err), Where: s.Addr().String(), Do: "see the log above and start it again", Err: err}
		}
		logger.LogAttrs(cmd.Context(), slog.LevelInfo, "stopped")
		return nil
	}
	return cmd
}
