// Package client is the mobile end of the tunnel: it keeps one link to a
// server alive over whatever network there is, and dials through it.
package client

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/mobility/netwatch"
	"github.com/godwit-net/godwit/mobility/places"
	"github.com/godwit-net/godwit/transports"
)

// A Config says which server, which key and which encapsulations. All fields
// without a default are required.
type Config struct {
	Logger *slog.Logger // nil discards

	// Network is where sockets come from.
	Network transports.Network
	// Transports are the encapsulations this client may use, best first.
	Transports []transports.Transport

	Server     string            // the server's HOST:PORT; all encapsulations share the port
	ServerKey  ed25519.PublicKey // pinned
	PrivateKey ed25519.PrivateKey
	// Enrolment has a server learn PrivateKey's public half that does not know it
	// yet; nil: it knows.
	Enrolment []byte

	// Mark ends the nonce of the first message, for a server that answers nobody
	// else; see package knock. nil adds nothing.
	Mark func(now time.Time, spi uint64, random []byte) []byte

	// Gateway is how to authenticate with a server that need not be godwit, in
	// place of ServerKey and PrivateKey. Its moves use the first of Transports.
	Gateway *Gateway

	// IKELifetime and ChildLifetime are the ages at which this end rekeys its
	// SAs; zero means the defaults of package ike, negative never.
	IKELifetime, ChildLifetime time.Duration

	// PostQuantum says whether the keys have to be safe from quantum computers;
	// they are where the other end can, by default.
	PostQuantum ike.PostQuantum

	// KeyLog gets the keys of all SAs, to decrypt captures with; nil in all
	// ordinary use.
	KeyLog ike.KeyLog

	// NoOffload has packets of the path's size cross the stack one by one, for
	// comparison and to look for faults.
	NoOffload bool

	// NoRecovery leaves packets that are lost on the way to the TCP inside, and
	// the rate of the path too. Both ends need recovery for either to have it.
	NoRecovery bool
	// Duplicate sends small datagrams of UDP inside twice, on encapsulations that
	// lose packets: what the network loses of them then seldom matters.
	Duplicate bool
	// ReplayBytes bounds what is kept of what was sent, to be sent again after a
	// move; 0 means link.DefaultFlightBytes.
	ReplayBytes int

	// EarlyData says when a stream's first bytes need not wait for the
	// destination; the default is EarlyKnown.
	EarlyData EarlyData
	// Spare is how many connections to the service inside the tunnel are kept
	// ready to begin with; 0 means the default of package warm, negative none.
	Spare int

	// Resolve finds the server's addresses; it is asked again at each
	// registration. Default: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// Changes tells that addresses or routes of this host may have changed.
	// Nil: the client notices only by silence and socket errors.
	Changes <-chan struct{}
	// LocalAddress gives the source address that packets to remote would have
	// now. Default: the system's choice.
	LocalAddress func(remote netip.Addr) (netip.Addr, error)
	// Attachment tells how packets to remote would leave now, so that a move
	// between two networks of the same addresses is seen too. Nil: only the
	// address that LocalAddress gives counts.
	Attachment func(remote netip.Addr) (netwatch.Attachment, error)
	// Interfaces tells by which interfaces packets to remote can leave, the one
	// that they take by themselves first. While there are two, the second is
	// registered as a standby. Nil: only one is ever used.
	Interfaces func(remote netip.Addr) []netwatch.Attachment
	// Standby keeps another encapsulation ready on the network in use, while there
	// is no second network.
	Standby bool
	// ClientDecides has this client choose the encapsulation by the order of its
	// Transports, instead of following the server's replies.
	ClientDecides bool
	// Through gives a Network whose sockets leave by an interface. Nil: the
	// source address alone decides.
	Through func(iface string) transports.Network
	// Resumed tells that this host has been asleep: what was known of the
	// network counts for nothing then, whatever Attachment says.
	Resumed <-chan struct{}
	// Places remembers what worked where. Nil: in this process alone. Its Close
	// is the caller's.
	Places *places.Memory
	// HasAddress tells whether a is an address of this host, so that packets can
	// still leave from it. Nil: nothing is known, and after a change of network
	// the old one counts as gone.
	HasAddress func(a netip.Addr) bool
}
