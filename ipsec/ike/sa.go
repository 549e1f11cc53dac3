package ike

import (
	"crypto/sha256"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// saState says how far an IKE SA is on its way out.
type saState uint8

const (
	saLive     saState = iota // in use, or about to be
	saReplaced                // another took over; one end deletes it
	saGone                    // deleted; answers retransmissions for a while
)

func (s saState) String() string {
	return [...]string{"live", "replaced", "gone"}[s]
}

// An ikeSA is one IKE SA: keys and the two message ID windows of size 1.
type ikeSA struct {
	keyLog KeyLog // may be nil
	// initiator is set when this end is the original initiator of this SA,
	// which after a rekeying is the end that started the rekeying.
	initiator  bool
	spiI, spiR uint64
	state      saState
	expire     time.Time // when a replaced SA is gone, and one gone forgotten

	prf    PRF
	group  Group  // of the first key exchange
	groups Groups // of all of them
	keys   ikeKeys
	out    *sealer
	in     *opener

	nextSend, nextRecv uint32
	lastRequest        [sha256.Size]byte // of the last request answered
	lastResponse       [][]byte          // as it was sent
	request            *request          // ours that is under way

	fragment            int // the size of our fragments; 0 without fragmentation
	requests, responses assembly

	token []byte // with which the peer tells that it lost this SA; nil for none

	peerRekey *peerRekey   // what the peer's rekeying of this SA made during ours
	awaited   []*following // exchanges of the peer that go on with IKE_FOLLOWUP_KE
}

// A peerRekey is the outcome of the peer's rekeying of something that we are
// rekeying as well.
type peerRekey struct {
	low   []byte // the lower nonce of that exchange
	sa    *ikeSA // for IKE SAs
	child *child // for Child SAs

	until time.Time // without an outcome: when we do not expect any more
	lost  bool      // our rekeying finished before the peer's, and won
}

// A requestKind says what a request is for.
type requestKind uint8

const (
	reqInit requestKind = iota + 1
	reqAuth
	reqChild // create or rekey a Child SA
	reqIKE   // rekey the IKE SA
	reqLiveness
	reqDeleteChild
	reqDeleteIKE
	reqUpdate // addresses, RFC 4555
	reqProbe
	reqIntermediate
	reqToken // RFC 6290
)

func (k requestKind) exchange() message.ExchangeType {
	switch k {
	case reqInit:
		return message.IKESAInit
	case reqAuth:
		return message.IKEAuth
	case reqChild, reqIKE:
		return message.CreateChildSA
	case reqIntermediate:
		return message.IKEIntermediate
	}
	return message.Informational
}

// A request is one of ours that waits for its response.
type request struct {
	kind requestKind
	id   uint32
	msgs [][]byte // one, or fragments

	first    time.Time // when it went out first
	next     time.Time // when it goes out again
	giveUp   time.Time // zero for never
	interval time.Duration
	tries    int

	// What the response needs.
	offered  *message.SA
	nonce    []byte
	ke       *keyExchange
	spi      uint32 // of our half of the new Child SA
	ikeSPI   uint64 // of our half of the new IKE SA
	child    *child // the one that is rekeyed or deleted
	model    *child // the one that a new child takes its selectors from
	tsi, tsr []TrafficSelector
	retried  bool   // after INVALID_KE_PAYLOAD
	cookie2  []byte // of a probe or an update

	follow *following // in IKE_FOLLOWUP_KE
}

// exchange gives the type of the exchange that the request starts.
func (r *request) exchange() message.ExchangeType {
	if r.follow != nil {
		return message.IKEFollowupKE
	}
	return r.kind.exchange()
}

func (sa *ikeSA) localSPI() uint64 {
	if sa.initiator {
		return sa.spiI
	}
	return sa.spiR
}

// setKeys prepares the ciphers of both directions.
func (sa *ikeSA) setKeys(c choice, k ikeKeys) {
	if sa.keyLog != nil {
		sa.keyLog.IKE(sa.spiI, sa.spiR, k.ei, k.er, c.cipher)
	}
	sa.prf, sa.group, sa.groups, sa.keys = c.prf, c.group, Groups{c.group}, k
	out, in := k.ei, k.er
	if !sa.initiator {
		out, in = in, out
	}
	sa.out, sa.in = new(sealer), new(opener)
	sa.out.aead, sa.out.salt = newAEAD(c.cipher, out)
	sa.in.aead, sa.in.salt = newAEAD(c.cipher, in)
}

func (sa *ikeSA) header(e message.ExchangeType, id uint32, response bool) message.Header {
	h := message.Header{
		InitiatorSPI: sa.spiI, ResponderSPI: sa.spiR,
		Version: message.Version2, Exchange: e, ID: id,
	}
	if sa.initiator {
		h.Flags |= message.FlagInitiator
	}
	if response {
		h.Flags |= message.FlagResponse
	}
	return h
}

// is reports whether a message belongs to this SA and comes from the peer. In
// IKE_SA_INIT the responder's SPI is not yet known.
func (sa *ikeSA) is(h *message.Header) bool {
	return h.FromInitiator() != sa.initiator && h.InitiatorSPI == sa.spiI &&
		(h.ResponderSPI == sa.spiR || sa.spiR == 0)
}

// seal encrypts a message, in fragments if it is long.
func (sa *ikeSA) seal(e message.ExchangeType, id uint32, response bool, ps []message.Payload) ([][]byte, error) {
	m := message.Message{Header: sa.header(e, id, response), Payloads: ps}
	if sa.token != nil && !response {
		m.Least = tokenAnswerLen
	}
	if sa.fragment > 0 {
		size := sa.fragment
		if e == message.IKEIntermediate || e == message.IKEFollowupKE {
			size = min(size, smallFragment)
		}
		return m.AppendFragments(sa.out, size)
	}
	b, err := m.AppendSealed(nil, sa.out)
	return [][]byte{b}, err
}

// due is the next time at which something happens to this SA.
func (sa *ikeSA) due() time.Time {
	t := sa.expire
	if sa.request != nil {
		t = earlier(t, sa.request.next)
	}
	return t
}

// earlier gives the earlier of two times of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// reached reports whether a deadline, if there is one, has come.
func reached(now, t time.Time) bool { return !t.IsZero() && !now.Before(t) }
