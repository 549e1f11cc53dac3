//go:build !unix

package main

import "os"

// hangups gives nothing: this system has no SIGHUP, and settings are read at the
// start.
func hangups() (requests <-chan os.Signal, stop func()) { return nil, func() {} }
