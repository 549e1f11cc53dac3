package main

import (
	"context"
	"log/slog"

	"github.com/godwit-net/godwit/config"
)

// joinedQueue is how many clients may wait for their file to be written.
const joinedQueue = 1024

// recordJoined gives a function that records in d that a client has joined. It
// never waits: files are written by a goroutine of their own, which ends with
// ctx after it has written what waits; done is closed then.
func recordJoined(ctx context.Context, d *config.ServerDir, logger *slog.Logger) (joined func(name string), done <-chan struct{}) {
	names, end := make(chan string, joinedQueue), make(chan struct{})
	write := func(name string) {
		if err := d.MarkJoined(name); err != nil {
			logger.LogAttrs(ctx, slog.LevelError, "client not recorded as joined", slog.String("peer", name), slog.Any("err", err))
		}
	}
	go func() {
		defer close(end)
		for {
			select {
			case name := <-names:
				write(name)
			case <-ctx.Done():
				for {
					select {
					case name := <-names:
						write(name)
					default:
						return
					}
				}
			}
		}
	}()
	return func(name string) {
		select {
		case names <- name:
		default:
			logger.LogAttrs(ctx, slog.LevelError, "client not recorded as joined: too many at once", slog.String("peer", name))
		}
	}, end
}
