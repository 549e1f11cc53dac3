package main

import (
	"context"
	"log/slog"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/mobility/netwatch"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
)

// watchNetwork makes c notice when this host moves or has slept, until stop.
// Where watching is not possible the client goes on without: silence still
// tells it.
func watchNetwork(ctx context.Context, c *client.Config, logger *slog.Logger) (stop func()) {
	c.LocalAddress, c.Attachment, c.HasAddress = netwatch.LocalAddress, netwatch.AttachmentTo, netwatch.HasAddress
	c.Interfaces = netwatch.Attachments
	c.Through = func(iface string) transports.Network { return system.New(system.Through(iface)) }
	var stopChanges, stopSleep func()
	c.Changes, stopChanges = pass(ctx, logger, "network changed", func() (*netwatch.Watcher, error) { return netwatch.New(logger) })
	c.Resumed, stopSleep = pass(ctx, logger, "resumed from sleep", netwatch.Sleep)
	return func() {
		stopChanges()
		stopSleep()
	}
}

// pass gives a channel that receives when the Watcher that open makes tells of
// something; nil if there is none.
func pass(ctx context.Context, logger *slog.Logger, what string, open func() (*netwatch.Watcher, error)) (news <-chan struct{}, stop func()) {
	w, err := open()
	if err != nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "cannot watch; moves are noticed later", slog.String("for", what), slog.Any("err", err))
		return nil, func() {}
	}
	c, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.Events() {
			logger.LogAttrs(ctx, slog.LevelDebug, what, slog.String("reason", e.Reason))
			select {
			case c <- struct{}{}:
			default: // one is waiting already
			}
		}
		if ctx.Err() == nil {
			logger.LogAttrs(ctx, slog.LevelWarn, "watching failed; moves are noticed later", slog.String("for", what))
		}
	}()
	return c, func() {
		_ = w.Close() // nothing is lost with it
		<-done
	}
}
