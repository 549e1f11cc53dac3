package mobility

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// RegistrarConfig makes a Registrar.
type RegistrarConfig struct {
	HomeAddress netip.Addr // the client's inner address
	HomeAgent   netip.Addr // the server's inner address

	// Encapsulations are those supported, in order of preference.
	Encapsulations []transports.Name

	// Identification is where the identifications start; it must exceed any
	// that was used on the same SA before, so take the time.
	Identification uint64

	// PaddedSize gives the size in bytes of the whole ESP packet of a padded
	// copy: what data will have. Nil means DefaultPaddedSize for all.
	PaddedSize func(transports.Name) int

	// NextID names the carriers that are opened. Nil counts from 1, which is
	// for owners that never call Adopt.
	NextID func() CarrierID

	// ReceiveState gives the state of the client's inbound SA; nil says nothing.
	ReceiveState func() regmsg.ReceiveState

	// SettleTime is how long other encapsulations have to answer after the
	// first; 2 s by default. Three round trips are granted if that is longer.
	SettleTime time.Duration

	// ClientDecides lets the client choose by its own order of preference
	// instead of following the server's replies.
	ClientDecides bool

	Logger *slog.Logger // nil discards
}

// DefaultPaddedSize is the size in bytes of padded copies by default.
const DefaultPaddedSize = 1400

// HistorySize is how many registrations History tells of.
const HistorySize = 64

// RegistrationBurst is how many registrations may follow each other at once.
const RegistrationBurst = 8

// A Registrar is the client's side: it registers the client's point of
// attachment over every encapsulation at once, and says by which carrier data
// leaves. It is not safe for concurrent use.
type Registrar struct{ cfg RegistrarConfig }

// NewRegistrar makes a Registrar without any carrier.
func NewRegistrar(cfg RegistrarConfig) *Registrar { return &Registrar{cfg: cfg} }

// Adopt takes over a carrier that is open already, as IKE leaves them. With
// current set it is the one that data leaves by until a registration says
// otherwise (an action Use follows if there was none). Adopted carriers are
// used by the next Start(TriggerConnect) and never again for a later one.
func (r *Registrar) Adopt(now time.Time, id CarrierID, d transports.Description, current bool) {}

// Start begins a new registration over every encapsulation at once. More than
// one a second on average, with a burst of RegistrationBurst, is put off to
// NextTimeout, several becoming one. TriggerSilence and TriggerSocket are
// ignored while a registration runs that nothing has answered yet.
func (r *Registrar) Start(now time.Time, t Trigger) {}

// Opened tells that a carrier's addresses are known; Sends for it follow.
func (r *Registrar) Opened(now time.Time, id CarrierID, d transports.Description) {}

// OpenFailed tells that a carrier could not be opened.
func (r *Registrar) OpenFailed(now time.Time, id CarrierID, err error) {}

// Closed tells that a carrier has ended otherwise than by an action Close.
func (r *Registrar) Closed(now time.Time, id CarrierID, err error) {}

// Receive takes a reply that came by a carrier. Errors are for the debug log:
// ErrStale, ErrCarrier, ErrAddress, *ReplyError; nothing changed then.
func (r *Registrar) Receive(now time.Time, m *regmsg.Reply, id CarrierID) error { return nil }

// Current is the path that data leaves by; its ID is zero if there is none.
func (r *Registrar) Current() Path { return Path{} }

// Registering reports that a registration is wanted or under way and no
// answer to it has come yet. Probes of better encapsulations do not count.
func (r *Registrar) Registering() bool { return false }

// History tells of the last registrations, HistorySize at most, oldest first.
func (r *Registrar) History() []Record { return nil }

// NextTimeout is when Advance wants to be called; zero: never.
func (r *Registrar) NextTimeout() time.Time { return time.Time{} }

// Advance does what is due at now.
func (r *Registrar) Advance(now time.Time) {}

// Actions gives what is to be done, in order, once. It may be called at any
// time and should be after every other call.
func (r *Registrar) Actions() []Action { return nil }
