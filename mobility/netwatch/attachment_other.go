//go:build !linux

package netwatch

import (
	"net/netip"
	"syscall"
)

// tellsGateways: nothing is known of routers here.
const tellsGateways = false

// leadsTo: whoever tries will see.
func (*Attachment) leadsTo(netip.Addr, Mark) bool { return true }

// findGateway has nobody to ask here.
func (*Attachment) findGateway(netip.Addr, Mark) {}

// Control does nothing: there are no marks here.
func (Mark) Control(string, string, syscall.RawConn) error { return nil }
