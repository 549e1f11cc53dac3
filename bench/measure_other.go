//go:build !linux

package main

import (
	"context"
	"errors"
	"io"

	"github.com/godwit-net/godwit/bench/report"
)

const defaultPeers = "godwit"

// measure needs namespaces.
func measure(context.Context, *options, io.Writer) (*report.Report, error) {
	return nil, errors.New("measurements need Linux")
}
