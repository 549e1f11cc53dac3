package ike

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// authenticate goes on when the IKE SA has keys: with the next additional key
// exchange, in an IKE_INTERMEDIATE of its own (RFC 9370, Section 2.2.2), or with
// IKE_AUTH if there is none.
//
//	HDR, SK {KEi(n)} -->
func (s *Session) authenticate(now time.Time, sa *ikeSA) {
	f := s.first
	if len(f.left) == 0 {
		f.authID = sa.nextSend
		s.sendAuth(now, sa)
		return
	}
	r := &request{kind: reqIntermediate, ke: newKeyExchange(f.left[0], s.rand)}
	ps := []message.Payload{&message.KE{Group: uint16(r.ke.group), Data: r.ke.public()}}
	h := sa.header(message.IKEIntermediate, sa.nextSend, false)
	f.coverOwn(sa, h, ps)
	s.send(now, sa, r, ps)
}

// intermediateResponse takes:
//
//	<-- HDR, SK {KEr(n)}
func (s *Session) intermediateResponse(now time.Time, sa *ikeSA, r *request, h *message.Header, in *opened) {
	if n := message.FindError(in.payloads); n != nil {
		s.close(now, &NotifyError{n.NotifyType})
		return
	}
	ke, ok := message.Find[*message.KE](in.payloads)
	if !ok || Group(ke.Group) != r.ke.group {
		s.close(now, fmt.Errorf("additional key exchange: %w", errChoice))
		return
	}
	shared, err := r.ke.shared(ke.Data)
	if err != nil {
		s.close(now, fmt.Errorf("additional key exchange: %w", err))
		return
	}
	s.first.cover(sa, h, in)
	s.first.advance(sa, shared)
	s.authenticate(now, sa)
}

// handleIntermediate answers IKE_INTERMEDIATE at a responder. The answer is the
// last message that the present keys protect.
func (s *Session) handleIntermediate(now time.Time, sa *ikeSA, h *message.Header, in *opened) ([]message.Payload, func()) {
	f := s.first
	ke, ok := message.Find[*message.KE](in.payloads)
	if !ok || Group(ke.Group) != f.left[0] {
		return s.fatal(now, refuse(message.InvalidSyntax, "%v is to be exchanged", f.left[0]))
	}
	public, shared, err := f.left[0].answer(s.rand, ke.Data)
	if err != nil {
		return s.fatal(now, refuse(message.InvalidSyntax, "%w", err))
	}
	reply := []message.Payload{&message.KE{Group: ke.Group, Data: public}}
	f.cover(sa, h, in)
	f.coverOwn(sa, sa.header(message.IKEIntermediate, h.ID, true), reply)
	return reply, func() { f.advance(sa, shared) }
}

// cover adds a message of IKE_INTERMEDIATE to what AUTH covers, for its sender
// (RFC 9242, Section 3.3.2):
//
//	IntAuth_i1 = prf(SK_pi1, IntAuth_i1A | IntAuth_i1P)
//	IntAuth_i2 = prf(SK_pi2, IntAuth_i1 | IntAuth_i2A | IntAuth_i2P)
//
// SK_pi and SK_pr are those of the keys that protect the message.
func (f *firstExchange) cover(sa *ikeSA, h *message.Header, in *opened) {
	octets := h.AppendAuthenticated(nil, in.first, in.flags, in.plain)
	if h.FromInitiator() {
		f.authI = sa.prf.sum(sa.keys.pi, f.authI, octets)
	} else {
		f.authR = sa.prf.sum(sa.keys.pr, f.authR, octets)
	}
}

// coverOwn is cover for a message that is about to be sealed. What is too big for
// a message fails there.
func (f *firstExchange) coverOwn(sa *ikeSA, h message.Header, ps []message.Payload) {
	if first, plain, err := message.AppendPayloads(nil, ps); err == nil {
		f.cover(sa, &h, &opened{first: first, plain: plain})
	}
}

// advance makes the keys that protect everything from now on (RFC 9370, Section
// 2.2.2):
//
//	SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr)
func (f *firstExchange) advance(sa *ikeSA, shared []byte) {
	groups := append(sa.groups, f.left[0])
	f.left = f.left[1:]
	seed := sa.prf.sum(sa.keys.d, shared, f.ni, f.nr)
	sa.setKeys(f.choice, newIKEKeys(f.choice.prf, f.choice.cipher, seed, f.ni, f.nr, sa.spiI, sa.spiR))
	sa.groups = groups
}

// intAuth is what both ends add to their signed octets; nothing without
// IKE_INTERMEDIATE.
//
//	IntAuth = IntAuth_iN | IntAuth_rN | IKE_AUTH_MID
func (f *firstExchange) intAuth() []byte {
	if f.authI == nil {
		return nil
	}
	return binary.BigEndian.AppendUint32(slices.Concat(f.authI, f.authR), f.authID)
}
