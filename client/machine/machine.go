// Package machine leads everything that a machine sends through the tunnel: it
// makes a TUN device, has rules and routes lead to it, and ends what comes out
// of it in a TCP/IP stack of its own, from which each connection and each
// datagram is passed to the client like one of its proxy's. So the server's
// policy, its errors, warm connections and early data are the same as there, and
// the server needs nothing for it.
//
// What it changes on the machine is planned by a pure function, written to a file
// before it is done, and undone from that file, however the process ended.
//
// # Limitations
//
// Linux only, and root. Of ICMP only pings come this far, and they are refused as
// the proxy service inside the tunnel knows no pings; but those to the device's
// own far end are answered. Multicast and broadcast stay outside or are dropped.
package machine

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/godwit-net/godwit/tunnel"
)

// The addresses at the device's ends: Near are the machine's, Far those of the
// stack behind it, where names are asked for. IPv4's are of the range for
// benchmarks (RFC 2544), which no network on the way has; IPv6's of a private
// range picked for this (RFC 4193).
var (
	Near4 = netip.MustParseAddr("198.18.71.1")
	Far4  = netip.MustParseAddr("198.18.71.2")
	Near6 = netip.MustParseAddr("fd67:6f64:7769:74::1")
	Far6  = netip.MustParseAddr("fd67:6f64:7769:74::2")
)

// Mark is the fwmark (SO_MARK of socket(7)) of sockets that are to stay outside
// of the tunnel, as those of the tunnel itself have to.
const Mark = 0x676f6477

// Defaults of Settings.
const (
	DefaultDevice = "godwit0"
	// DefaultMTU lets a datagram and what goes before it within the tunnel (RFC
	// 1928, Section 7: up to 22 bytes) pass whole in a packet of tunnel.InnerMTU.
	DefaultMTU = 1356
	minMTU     = 1280 // RFC 8200, Section 5
)

// Settings are what of the machine's traffic goes through the tunnel.
type Settings struct {
	Device string // name of the TUN device; DefaultDevice if empty
	MTU    int    // of it, in bytes, 1280 to 65535; DefaultMTU if 0
	// Include are the targets that go through the tunnel; empty means all.
	Include []netip.Prefix
	// Exclude are targets that do not, also where Include has them.
	Exclude []netip.Prefix
	// NoLAN leads into the tunnel what else would go to private addresses of
	// networks that the machine is attached to, too.
	NoLAN bool
	// NoDNS leaves names to whoever resolved them before.
	NoDNS bool
	// Resolver is asked for names, through the tunnel; the server's own if it is
	// not valid.
	Resolver netip.Addr
	// KillSwitch keeps the machine from sending anything outside of the tunnel
	// also before there is one, and when the process has ended otherwise than by
	// Close, until Cleanup.
	KillSwitch bool
}

// ErrUnsupported: the system has no TUN device or no routing by rules, or it is
// not known here how to use them.
var ErrUnsupported = errors.New("the whole machine cannot be led through the tunnel on this system")

// ErrNotPermitted: the process may not change the machine's network.
var ErrNotPermitted = errors.New("this needs root, or CAP_NET_ADMIN")

// A Config is what New needs. Fields without a default are required.
type Config struct {
	Settings
	// File is where the state is kept; see State.
	File string
	// Dial and Associate are those of package client.
	Dial      func(ctx context.Context, network, address string) (net.Conn, error)
	Associate func(ctx context.Context) (net.Conn, error)
	// Gateway gives the server's inner address once there is a link, where it
	// answers questions for names.
	Gateway func(ctx context.Context) (netip.Addr, error)
	Logger  *slog.Logger // nil discards
}

// A Status tells what a Machine does.
type Status struct {
	Device     string `json:"device"`
	MTU        int    `json:"mtu"` // of the device, in bytes
	LAN        bool   `json:"lan"` // local networks are reached directly
	DNS        string `json:"dns"` // server, off, or the address that is asked
	KillSwitch bool   `json:"kill_switch"`
	Taken      bool   `json:"taken"` // the machine's traffic is led into the device
	Streams    int    `json:"streams"`
	Flows      int    `json:"flows"` // sources of datagrams
	Queries    uint64 `json:"queries"`
}

// defaults fills in what is not set.
func (s *Settings) defaults() error {
	if s.Device == "" {
		s.Device = DefaultDevice
	}
	if s.MTU == 0 {
		s.MTU = DefaultMTU
	}
	if s.MTU < minMTU || s.MTU > 65535 {
		return errors.New("the device's MTU is not between 1280 and 65535")
	}
	return nil
}

func (s *Settings) dns() string {
	switch {
	case s.NoDNS:
		return "off"
	case s.Resolver.IsValid():
		return s.Resolver.String()
	}
	return "server"
}

// newStack makes the stack behind a device that takes packets by output.
func newStack(c Config, f *forwarder, output func(tunnel.Packet)) (*tunnel.Stack, error) {
	return tunnel.New(tunnel.Config{
		Addresses: []netip.Addr{Far4, Far6},
		MTU:       c.MTU,
		Output:    output,
		Forward:   &tunnel.Forward{TCP: f.tcp, UDP: f.udp, Echo: f.echo},
		Logger:    c.Logger,
	})
}
