//go:build !linux

package netwatch

import "log/slog"

func open(*slog.Logger) (*Watcher, error) { return poll(pollInterval, look), nil }
