//go:build !linux

package netwatch

import "net/netip"

// findGateway has nobody to ask here.
func (a *Attachment) findGateway(netip.Addr) {}
