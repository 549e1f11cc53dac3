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
	r := &request{kind: reqIKE, ikeSPI: s.newSPI(), nonce: s.rand.bytes(nonceLen), retried: t.retried}
	r.offered = offer(s.c.IKEProposals, message.ProtocolIKE, binary.BigEndian.AppendUint64(nil, r.ikeSPI), true)
	r.ke = newKeyExchange(firstGroup(s.c.IKEProposals, t.group, s.sa.group), s.rand)
	s.send(now, s.sa, r, []message.Payload{
		r.offered,
		&message.Nonce{Data: r.nonce},
		&message.KE{Group: uint16(r.ke.group), Data: r.ke.public()},
	})
}

// successor makes the IKE SA that a rekeying agreed on (RFC 7296, Section
// 2.18); initiator is set at the end that started the rekeying, the original
// initiator of the new SA.
//
//	SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)
func successor(old *ikeSA, c choice, initiator bool, spiI, spiR uint64, shared, ni, nr []byte) *ikeSA {
	seed := old.prf.sum(old.keys.d, shared, ni, nr)
	sa := &ikeSA{keyLog: old.keyLog, fragment: old.fragment, initiator: initiator, spiI: spiI, spiR: spiR}
	sa.setKeys(c, newIKEKeys(c.prf, c.cipher, seed, ni, nr, spiI, spiR))
	return sa
}

// ikeResponse takes:
//
//	<-- HDR, SK {SA, Nr, KEr}
func (s *Session) ikeResponse(now time.Time, sa *ikeSA, r *request, ps []message.Payload) {
	if sa != s.sa {
		return
	}
	theirs := sa.peerRekey
	if n := message.FindError(ps); n != nil {
		g := groupWanted(n, s.c.IKEProposals)
		switch {
		case theirs != nil && theirs.sa.state == saLive:
			// Ours came to nothing, the peer's did not.
			s.adopt(now, theirs.sa)
		case g != 0 && !r.retried:
			s.queue = slices.Insert(s.queue, 0, task{kind: reqIKE, group: g, retried: true})
		case n.NotifyType == message.TemporaryFailure:
			s.rekeyAt = s.retry(now, retryTemporary)
		default:
			s.debug("IKE SA not rekeyed", &NotifyError{n.NotifyType})
			s.rekeyAt = s.retry(now, retryRefused)
		}
		return
	}
	mine, low, err := s.acceptIKE(sa, r, ps)
	if err != nil {
		// The peer believes in an SA whose keys we do not have, and will find
		// it silent. There is no name to delete it by but our own end's.
		s.debug("IKE SA not rekeyed", err)
		if theirs != nil && theirs.sa.state == saLive {
			s.adopt(now, theirs.sa)
		} else {
			s.rekeyAt = s.retry(now, retryRefused)
		}
		return
	}
	s.addSA(mine)
	if theirs != nil && bytes.Compare(low, theirs.low) < 0 {
		// The exchange with the lowest nonce loses, and who started it deletes
		// what it made. Sections 2.8.1 and 2.25.2. The winner deletes the old.
		if theirs.sa.state == saLive {
			s.adopt(now, theirs.sa)
			s.replaced(now, mine)
			s.startDeleteIKE(now, mine)
			return
		}
		// The winner is gone already; its end must have thought otherwise.
	}
	if theirs != nil && theirs.sa.state == saLive {
		s.replaced(now, theirs.sa)
	}
	s.adopt(now, mine)
	s.startDeleteIKE(now, sa)
}

func (s *Session) acceptIKE(old *ikeSA, r *request, ps []message.Payload) (sa *ikeSA, low []byte, err error) {
	answer, ok1 := message.Find[*message.SA](ps)
	ke, ok2 := message.Find[*message.KE](ps)
	nonce, ok3 := message.Find[*message.Nonce](ps)
	if !ok1 || !ok2 || !ok3 {
		return nil, nil, message.ErrSyntax
	}
	c, p, err := chosen(r.offered, answer)
	if err != nil {
		return nil, nil, err
	}
	if len(p.SPI) != 8 || c.group != r.ke.group || Group(ke.Group) != c.group {
		return nil, nil, errChoice
	}
	spi := binary.BigEndian.Uint64(p.SPI)
	shared, err := r.ke.shared(ke.Data)
	if err != nil || spi == 0 {
		return nil, nil, errChoice
	}
	return successor(old, c, true, r.ikeSPI, spi, shared, r.nonce, nonce.Data), lowerNonce(r.nonce, nonce.Data), nil
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
	collision := false
	if sa.request != nil {
		switch sa.request.kind {
		case reqIKE:
			collision = true
		case reqChild, reqDeleteChild, reqDeleteIKE:
			return nil, refuse(message.TemporaryFailure, "a Child SA is being made or closed")
		}
	}
	if sa.peerRekey != nil || len(s.sas) >= maxIKESAs {
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
	mine := newKeyExchange(c.group, s.rand)
	shared, err := mine.shared(ke.Data)
	if err != nil || spiI == 0 {
		return nil, refuse(message.InvalidSyntax, "key exchange or SPI")
	}
	spiR, nr := s.newSPI(), s.rand.bytes(nonceLen)
	p.SPI = binary.BigEndian.AppendUint64(nil, spiR)
	next := successor(sa, c, false, spiI, spiR, shared, ni, nr)
	s.addSA(next)
	if collision {
		sa.peerRekey = &peerRekey{low: lowerNonce(ni, nr), sa: next}
	} else {
		s.adopt(now, next)
	}
	return []message.Payload{
		&message.SA{Proposals: []message.Proposal{p}},
		&message.Nonce{Data: nr},
		&message.KE{Group: uint16(c.group), Data: mine.public()},
	}, nil
}
