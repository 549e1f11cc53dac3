//go:build !linux

package stream

import "net"

func limitUnsent(*net.TCPConn) {}

func pacedRate(*net.TCPConn) (rate uint64, ok bool) { return 0, false }

func restart(*net.TCPConn) {}
