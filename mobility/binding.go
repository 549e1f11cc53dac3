package mobility

import (
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// BindingConfig makes a Binding.
type BindingConfig struct {
	HomeAddress netip.Addr // the client's inner address
	HomeAgent   netip.Addr // the server's inner address

	// Preference orders the encapsulations, best first; nil is the default
	// order of package transports. Those not in it come last.
	Preference []transports.Name

	Offers       func() []regmsg.Offer      // nil offers nothing
	ReceiveState func() regmsg.ReceiveState // of the server's inbound SA; nil says nothing
	Random       io.Reader                  // path cookies; crypto/rand.Reader by default
	Logger       *slog.Logger               // nil discards
}

// An Arrival says how a request came in.
type Arrival struct {
	Carrier CarrierID
	Seen    transports.Description // of the request's packet: its source is the client
	Bytes   int                    // size of the ESP packet
	// Validated says that the encapsulation has proven the peer's address.
	Validated bool
}

// A Binding is the server's side for one client: it answers registrations and
// says by which carrier data leaves. It is not safe for concurrent use.
type Binding struct{ cfg BindingConfig }

// NewBinding makes a Binding without any carrier.
func NewBinding(cfg BindingConfig) *Binding { return &Binding{cfg: cfg} }

// Adopt takes the carrier by which IKE_AUTH came as the one in use, without a
// registration; d is what the server sees, its source being the client.
func (b *Binding) Adopt(now time.Time, id CarrierID, d transports.Description, validated bool) {}

// Receive takes a request that came by a carrier. Errors are for the debug
// log: ErrStale, ErrCarrier, ErrCookie, ErrAddress, ErrLimit; nothing changed then.
func (b *Binding) Receive(now time.Time, m *regmsg.Request, a Arrival) error { return nil }

// Closed tells that a carrier has ended otherwise than by an action Close.
func (b *Binding) Closed(now time.Time, id CarrierID) {}

// Current is the path that data leaves by, Local being the server; its ID is
// zero if there is none.
func (b *Binding) Current() Path { return Path{} }

// NextTimeout is when Advance wants to be called; zero: never.
func (b *Binding) NextTimeout() time.Time { return time.Time{} }

// Advance does what is due at now.
func (b *Binding) Advance(now time.Time) {}

// Actions gives what is to be done, in order, once.
func (b *Binding) Actions() []Action { return nil }
