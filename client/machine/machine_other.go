//go:build !linux

package machine

import "log/slog"

// A Machine is only made on Linux.
type Machine struct{}

// New gives ErrUnsupported here.
func New(Config) (*Machine, error) { return nil, ErrUnsupported }

// Failed never gives anything here.
func (*Machine) Failed() <-chan error { return nil }

// Take gives ErrUnsupported here.
func (*Machine) Take() error { return ErrUnsupported }

// Status is empty here.
func (*Machine) Status() Status { return Status{} }

// Close has nothing to do here.
func (*Machine) Close(bool) error { return nil }

// Cleanup has nothing to do here.
func Cleanup(string, *slog.Logger) (bool, error) { return false, nil }

// Led is false here.
func Led() bool { return false }
