//go:build !linux

package relay

import "net"

// unsent is not known here.
func unsent(net.Conn) int { return 0 }

// aborted is not known here.
func aborted(net.Conn) bool { return false }
