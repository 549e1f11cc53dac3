//go:build !linux

package system

import "net"

func tuneRaw(*net.IPConn) {}
