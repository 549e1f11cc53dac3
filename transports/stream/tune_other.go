//go:build !linux

package stream

import "net"

func limitUnsent(*net.TCPConn) {}
