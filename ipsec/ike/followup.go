package ike

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

const (
	// linkLen is the length of what our responses say in ADDITIONAL_KEY_EXCHANGE.
	linkLen = 8
	// maxAwaited bounds the exchanges of a peer that wait for IKE_FOLLOWUP_KE. A
	// peer with a window of 1 needs one.
	maxAwaited = 4
)

// A following is an agreement of CREATE_CHILD_SA whose additional key exchanges
// are not all done (RFC 9370, Section 2.2.4).
type following struct {
	child *childDeal // one of the two
	ike   *ikeDeal
	left  []Group
	link  []byte // names it in the next exchange

	// At the responder.
	old   *child     // that is rekeyed; may be nil
	rekey *peerRekey // of what is rekeyed
	until time.Time
}

func (f *following) add(shared []byte) {
	s := f.secrets()
	s.added = append(s.added, shared)
	f.left = f.left[1:]
}

func (f *following) secrets() *secrets {
	if f.ike != nil {
		return &f.ike.secrets
	}
	return &f.child.secrets
}

// groups gives the key exchange methods of a choice in order.
func (c *choice) groups() Groups { return append(Groups{c.group}, c.more...) }

// pending reports that the peer has not finished.
func (p *peerRekey) pending() bool { return p != nil && p.sa == nil && p.child == nil }

// alive reports that the peer's rekeying made an IKE SA that is still there.
func (p *peerRekey) alive() bool { return p != nil && p.sa != nil && p.sa.state == saLive }

// contend gives p, or nil if it waits for a peer that does not go on.
func (p *peerRekey) contend(now time.Time) *peerRekey {
	if p.pending() && reached(now, p.until) {
		return nil
	}
	return p
}

// contender is the peer's rekeying of the same thing, nil if there is none.
func (sa *ikeSA) contender(now time.Time) *peerRekey { return sa.peerRekey.contend(now) }
func (c *child) contender(now time.Time) *peerRekey  { return c.peerRekey.contend(now) }

// ikeProposals and espProposals are what we offer when an IKE SA is there. One
// without additional key exchanges is with a peer that does not want them or
// may not even understand.
func (s *Session) ikeProposals() []Proposal { return s.offers(s.c.IKEProposals) }
func (s *Session) espProposals() []Proposal { return s.offers(s.c.ESPProposals) }

func (s *Session) offers(ps []Proposal) []Proposal {
	if len(s.sa.groups) > 1 {
		return ps
	}
	if c := classical(ps); len(c) > 0 {
		return c
	}
	return ps
}

// nextKE reads the response to CREATE_CHILD_SA, by accept, or to
// IKE_FOLLOWUP_KE, and gives what was agreed and which key exchanges are left.
func (s *Session) nextKE(r *request, ps []message.Payload, accept func() (*following, error)) (*following, error) {
	f := r.follow
	if f == nil {
		var err error
		if f, err = accept(); err != nil {
			return nil, err
		}
	} else {
		ke, ok := message.Find[*message.KE](ps)
		if !ok || Group(ke.Group) != r.ke.group {
			return nil, errChoice
		}
		shared, err := r.ke.shared(ke.Data)
		if err != nil {
			return nil, err
		}
		f.add(shared)
	}
	if len(f.left) > 0 {
		n := message.FindNotify(ps, message.AdditionalKeyExchange)
		if n == nil {
			return nil, fmt.Errorf("no ADDITIONAL_KEY_EXCHANGE: %w", message.ErrSyntax)
		}
		f.link = n.Data
	}
	return f, nil
}

// followUp sends the next additional key exchange of what r started:
//
//	HDR, SK {KEi(n), N(ADDITIONAL_KEY_EXCHANGE)} -->
func (s *Session) followUp(now time.Time, sa *ikeSA, r *request, f *following) {
	next := &request{
		kind: r.kind, offered: r.offered, nonce: r.nonce, spi: r.spi, ikeSPI: r.ikeSPI,
		child: r.child, model: r.model, tsi: r.tsi, tsr: r.tsr, retried: r.retried,
		ke: newKeyExchange(f.left[0], s.rand), follow: f,
	}
	s.send(now, sa, next, []message.Payload{
		&message.KE{Group: uint16(next.ke.group), Data: next.ke.public()},
		&message.Notify{NotifyType: message.AdditionalKeyExchange, Data: f.link},
	})
}

// await keeps an exchange of the peer until IKE_FOLLOWUP_KE, and gives the
// payload that names it. What the same peer began before for the same thing and
// did not finish is void.
func (sa *ikeSA) await(now time.Time, e entropy, f *following) message.Payload {
	f.link, f.until = e.bytes(linkLen), now.Add(replacedLifetime)
	f.rekey = &peerRekey{low: f.secrets().low(), until: f.until}
	sa.awaited = slices.DeleteFunc(sa.awaited, func(o *following) bool {
		return reached(now, o.until) || f.ike != nil && o.ike != nil || f.old != nil && o.old == f.old
	})
	if len(sa.awaited) == maxAwaited {
		sa.awaited = slices.Delete(sa.awaited, 0, 1)
	}
	sa.awaited = append(sa.awaited, f)
	if f.ike != nil {
		sa.peerRekey = f.rekey
	} else if f.old != nil {
		f.old.peerRekey = f.rekey
	}
	return &message.Notify{NotifyType: message.AdditionalKeyExchange, Data: f.link}
}

// handleFollowup answers IKE_FOLLOWUP_KE.
func (s *Session) handleFollowup(now time.Time, sa *ikeSA, ps []message.Payload) ([]message.Payload, func()) {
	reply, refused := s.followed(now, sa, ps)
	return s.answered(now, reply, refused)
}

// followed takes the peer's next additional key exchange:
//
//	<-- HDR, SK {KEr(n), [N(ADDITIONAL_KEY_EXCHANGE)]}
func (s *Session) followed(now time.Time, sa *ikeSA, ps []message.Payload) ([]message.Payload, *RefusalError) {
	n := message.FindNotify(ps, message.AdditionalKeyExchange)
	ke, ok := message.Find[*message.KE](ps)
	if n == nil || !ok {
		return nil, refuse(message.InvalidSyntax, "a payload is missing")
	}
	i := slices.IndexFunc(sa.awaited, func(f *following) bool { return bytes.Equal(f.link, n.Data) && !reached(now, f.until) })
	if i < 0 {
		return nil, refuse(message.StateNotFound, "nothing to go on with")
	}
	f := sa.awaited[i]
	switch {
	case sa != s.sa:
		return nil, refuse(message.TemporaryFailure, "the IKE SA is on its way out")
	case len(s.children) >= maxChildren && f.child != nil:
		return nil, refuse(message.NoAdditionalSAs, "%d children", len(s.children))
	case len(s.sas) >= maxIKESAs && f.ike != nil:
		return nil, refuse(message.TemporaryFailure, "%d IKE SAs", len(s.sas))
	case Group(ke.Group) != f.left[0]:
		return nil, refuse(message.InvalidSyntax, "%v is to be exchanged", f.left[0])
	}
	public, shared, err := f.left[0].answer(s.rand, ke.Data)
	if err != nil {
		return nil, refuse(message.InvalidSyntax, "%w", err)
	}
	reply := []message.Payload{&message.KE{Group: ke.Group, Data: public}}
	if f.add(shared); len(f.left) > 0 {
		f.link = s.rand.bytes(linkLen)
		return append(reply, &message.Notify{NotifyType: message.AdditionalKeyExchange, Data: f.link}), nil
	}
	sa.awaited = slices.Delete(sa.awaited, i, i+1)
	if f.ike != nil {
		s.finishIKE(now, sa, f)
	} else {
		s.finishChild(now, sa, f)
	}
	return reply, nil
}
