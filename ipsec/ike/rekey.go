package ike

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// startIKE sends:
//
//	HDR, SK {SA, Ni, KEi} -->
func (s *Session) startIKE(now time.Time, t task) {
	if len(s.sas) >= maxIKESAs {
		s.rekeyAt = s.retry(now, retryTemporary)
		return
	}
	proposals := s.ikeProposals()
	r := &request{kind: reqIKE, ikeSPI: s.newSPI(), nonce: s.rand.bytes(nonceLen), retried: t.retried}
	// The peer's first request by the new IKE SA may overtake the response that
	// makes us know it.
	s.claim(r.ikeSPI)
	r.offered = offer(proposals, message.ProtocolIKE, binary.BigEndian.AppendUint64(nil, r.ikeSPI), true)
	r.ke = newKeyExchange(firstGroup(proposals, t.group, s.sa.group), s.rand)
	s.send(now, s.sa, r, []message.Payload{
		r.offered,
		&message.Nonce{Data: r.nonce},
		&message.KE{Group: uint16(r.ke.group), Data: r.ke.public()},
	})
}

// An ikeDeal is what CREATE_CHILD_SA agreed on for an IKE SA. The keys can be
// made when all of its key exchanges are done.
type ikeDeal struct {
	choice
	secrets
	token      []byte // the peer's, for the new IKE SA
	initiator  bool   // at the end that started the rekeying
	spiI, spiR uint64
}

// successor makes the IKE SA that a rekeying agreed on (RFC 7296, Section
// 2.18; RFC 9370, Section 2.2.4). Who started the rekeying is its original
// initiator.
//
//	SKEYSEED = prf(SK_d (old), SK(0) | Ni | Nr [| SK(1) | ...])
func (d *ikeDeal) successor(old *ikeSA) *ikeSA {
	seed := old.prf.sum(old.keys.d, d.seed()...)
	sa := &ikeSA{keyLog: old.keyLog, fragment: old.fragment, initiator: d.initiator, spiI: d.spiI, spiR: d.spiR}
	sa.setKeys(d.choice, newIKEKeys(d.prf, d.cipher, seed, d.ni, d.nr, d.spiI, d.spiR))
	sa.groups, sa.token = d.groups(), d.token
	return sa
}

// ikeResponse takes:
//
//	<-- HDR, SK {SA, Nr, KEr, [N(ADDITIONAL_KEY_EXCHANGE)]}
func (s *Session) ikeResponse(now time.Time, sa *ikeSA, r *request, ps []message.Payload) {
	if sa != s.sa {
		return
	}
	theirs := sa.contender(now)
	if n := message.FindError(ps); n != nil {
		g := groupWanted(n, s.ikeProposals())
		switch {
		case theirs.alive():
			// Ours came to nothing, the peer's did not.
			s.adopt(now, theirs.sa)
		case g != 0 && !r.retried:
			s.queue = slices.Insert(s.queue, 0, task{kind: reqIKE, group: g, retried: true})
		case n.NotifyType == message.TemporaryFailure || n.NotifyType == message.StateNotFound:
			s.rekeyAt = s.retry(now, retryTemporary)
		default:
			s.debug("IKE SA not rekeyed", &NotifyError{n.NotifyType})
			s.rekeyAt = s.retry(now, retryRefused)
		}
		return
	}
	f, err := s.nextKE(r, ps, func() (*following, error) {
		d, err := s.acceptIKE(r, ps)
		if err != nil {
			return nil, err
		}
		return &following{ike: d, left: d.more}, nil
	})
	if err == nil && len(f.left) > 0 {
		s.followUp(now, sa, r, f)
		return
	}
	if err != nil {
		// The peer believes in an SA whose keys we do not have, and will find
		// it silent. There is no name to delete it by but our own end's.
		s.debug("IKE SA not rekeyed", err)
		if theirs.alive() {
			s.adopt(now, theirs.sa)
		} else {
			s.rekeyAt = s.retry(now, retryRefused)
		}
		return
	}
	mine := f.ike.successor(sa)
	s.addSA(mine)
	if theirs != nil && bytes.Compare(f.ike.low(), theirs.low) < 0 {
		// The exchange with the lowest nonce loses, and who started it deletes
		// what it made. Sections 2.8.1 and 2.25.2. The winner deletes the old.
		if theirs.alive() {
			s.adopt(now, theirs.sa)
			s.replaced(now, mine)
			s.startDeleteIKE(now, mine)
			return
		}
		if theirs.pending() {
			// Should it never finish, ours is due again.
			s.rekeyAt = s.retry(now, retryRefused)
			s.replaced(now, mine)
			s.startDeleteIKE(now, mine)
			return
		}
		// The winner is gone already; its end must have thought otherwise.
	}
	if theirs.alive() {
		s.replaced(now, theirs.sa)
	}
	s.adopt(now, mine)
	if s.tokenPayload(0, 0) != nil {
		// "an extra INFORMATIONAL exchange". RFC 6290, Section 4.3
		s.enqueue(task{kind: reqToken})
	}
	s.startDeleteIKE(now, sa)
}

func (s *Session) acceptIKE(r *request, ps []message.Payload) (*ikeDeal, error) {
	answer, ok1 := message.Find[*message.SA](ps)
	ke, ok2 := message.Find[*message.KE](ps)
	nonce, ok3 := message.Find[*message.Nonce](ps)
	if !ok1 || !ok2 || !ok3 {
		return nil, message.ErrSyntax
	}
	c, p, err := chosen(r.offered, answer)
	if err != nil {
		return nil, err
	}
	if len(p.SPI) != 8 || c.group != r.ke.group || Group(ke.Group) != c.group {
		return nil, errChoice
	}
	spi := binary.BigEndian.Uint64(p.SPI)
	shared, err := r.ke.shared(ke.Data)
	if err != nil || spi == 0 {
		return nil, errChoice
	}
	return &ikeDeal{
		choice: c, secrets: secrets{ni: r.nonce, nr: nonce.Data, shared: shared},
		token: findToken(ps), initiator: true, spiI: r.ikeSPI, spiR: spi,
	}, nil
}

// adopt makes sa the one that new requests use; the old one waits to be
// deleted. The children belong to the Session, and so to the new IKE SA (RFC
// 7296, Section 2.8).
func (s *Session) adopt(now time.Time, sa *ikeSA) {
	s.replaced(now, s.sa)
	s.sa = sa
	s.rekeyAt = s.soft(now, s.c.IKELifetime)
	s.queue = slices.DeleteFunc(s.queue, func(t task) bool { return t.kind == reqIKE })
}

// replaced gives the end that should delete sa some time to do so.
func (s *Session) replaced(now time.Time, sa *ikeSA) {
	if sa.state == saLive {
		sa.state, sa.expire = saReplaced, now.Add(replacedLifetime)
	}
}

// handleRekeyIKE answers the rekeying of the IKE SA, by the rules of RFC 7296,
// Section 2.25.2.
func (s *Session) handleRekeyIKE(now time.Time, sa *ikeSA, ps []message.Payload, offered *message.SA, ni []byte) ([]message.Payload, *RefusalError) {
	if sa.request != nil {
		switch sa.request.kind {
		case reqChild, reqDeleteChild, reqDeleteIKE:
			return nil, refuse(message.TemporaryFailure, "a Child SA is being made or closed")
		}
	}
	if p := sa.peerRekey; p != nil && !p.pending() || len(s.sas) >= maxIKESAs {
		return nil, refuse(message.TemporaryFailure, "the IKE SA is rekeyed already")
	}
	ke, ok := message.Find[*message.KE](ps)
	if !ok {
		return nil, refuse(message.InvalidSyntax, "no key exchange")
	}
	c, p, ok := choose(s.c.IKEProposals, offered, message.ProtocolIKE, true, Group(ke.Group))
	if !ok {
		return nil, refuse(message.NoProposalChosen, "no IKE proposal fits")
	}
	if Group(ke.Group) != c.group {
		e := refuse(message.InvalidKEPayload, "group %d is wanted", c.group)
		e.data = binary.BigEndian.AppendUint16(nil, uint16(c.group))
		return nil, e
	}
	var spiI uint64
	for i := range offered.Proposals {
		if o := &offered.Proposals[i]; o.Number == p.Number && len(o.SPI) == 8 {
			spiI = binary.BigEndian.Uint64(o.SPI)
		}
	}
	public, shared, err := c.group.answer(s.rand, ke.Data)
	if err != nil || spiI == 0 {
		return nil, refuse(message.InvalidSyntax, "key exchange or SPI")
	}
	spiR, nr := s.newSPI(), s.rand.bytes(nonceLen)
	p.SPI = binary.BigEndian.AppendUint64(nil, spiR)
	reply := []message.Payload{
		&message.SA{Proposals: []message.Proposal{p}},
		&message.Nonce{Data: nr},
		&message.KE{Group: uint16(c.group), Data: public},
	}
	// "this can be done within the CREATE_CHILD_SA exchange". RFC 6290, Section 4.3
	reply = append(reply, s.tokenPayload(spiI, spiR)...)
	d := &ikeDeal{choice: c, secrets: secrets{ni: bytes.Clone(ni), nr: nr, shared: shared}, spiI: spiI, spiR: spiR}
	if len(c.more) > 0 {
		return append(reply, sa.await(now, s.rand, &following{ike: d, left: c.more})), nil
	}
	s.finishIKE(now, sa, &following{ike: d})
	return reply, nil
}

// finishIKE adds the IKE SA that the peer's rekeying made, its key exchanges
// done.
func (s *Session) finishIKE(now time.Time, sa *ikeSA, f *following) {
	next := f.ike.successor(sa)
	s.addSA(next)
	if sa.request != nil && sa.request.kind == reqIKE {
		// Both rekey it.
		sa.peerRekey = &peerRekey{low: f.ike.low(), sa: next}
	} else {
		s.adopt(now, next)
	}
}
