package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// A child is a Child SA with what is planned for it.
type child struct {
	Child
	rekeyAt  time.Time
	deleteAt time.Time // when we delete it if the peer, who should, did not

	rekeying bool // our exchange is under way
	replaced bool // another took over, and one of the ends deletes this one
	deleting bool // we delete it
	silent   bool // the owner never heard of it: it lost a collision

	peerRekey *peerRekey // what the peer's rekeying of this child made during ours
}

// live reports whether the child carries traffic from now on.
func (c *child) live() bool { return !c.replaced && !c.deleting && !c.silent }

func spiBytes(spi uint32) []byte { return binary.BigEndian.AppendUint32(nil, spi) }

func (s *Session) has(c *child) bool { return slices.Contains(s.children, c) }

// addChild keeps a new child and tells the owner.
func (s *Session) addChild(now time.Time, c *child) {
	s.children = append(s.children, c)
	if l := s.c.KeyLog; l != nil && c.Algorithm.Valid() {
		l.ESP(c.InboundSPI, c.InboundKey, c.Algorithm)
		l.ESP(c.OutboundSPI, c.OutboundKey, c.Algorithm)
	}
	if c.live() {
		c.rekeyAt = s.soft(now, s.c.ChildLifetime)
	}
	if !c.silent {
		s.emit(ChildCreated{c.Child})
	}
}

// removeChild forgets a child, if it is still there.
func (s *Session) removeChild(c *child) {
	if s.has(c) {
		s.children = slices.DeleteFunc(s.children, func(o *child) bool { return o == c })
		s.childGone(c)
	}
}

func (s *Session) childGone(c *child) {
	if !c.silent {
		s.emit(ChildDeleted{c.InboundSPI})
	}
}

// A childDeal is what CREATE_CHILD_SA or IKE_AUTH agreed on for a Child SA. The
// keys can be made when all of its key exchanges are done.
type childDeal struct {
	choice
	secrets
	role     Role // ours in the exchange
	in, out  uint32
	tsi, tsr []TrafficSelector
}

// child derives the keys of the Child SA.
func (d *childDeal) child(sa *ikeSA) *child {
	toResponder, toInitiator := childKeys(sa.prf, sa.keys.d, d.cipher, &d.secrets)
	k := &child{Child: Child{InboundSPI: d.in, OutboundSPI: d.out, Algorithm: d.cipher, ESN: d.esn, Role: d.role}}
	if d.role == RoleInitiator {
		k.OutboundKey, k.InboundKey = toResponder, toInitiator
		k.TSLocal, k.TSRemote = d.tsi, d.tsr
	} else {
		k.InboundKey, k.OutboundKey = toResponder, toInitiator
		k.TSLocal, k.TSRemote = d.tsr, d.tsi
	}
	return k
}

func selectors(ps []message.Payload) (tsi, tsr *message.TS) {
	for _, p := range ps {
		if t, ok := p.(*message.TS); ok {
			if t.Responder {
				tsr = t
			} else {
				tsi = t
			}
		}
	}
	return tsi, tsr
}

// answerChild makes our half of a Child SA from a request with the payloads
// SA, [Ni, KEi,] TSi, TSr. groups is false in IKE_AUTH.
func (s *Session) answerChild(ps []message.Payload, ni, nr []byte, groups bool) ([]message.Payload, *childDeal, *RefusalError) {
	offered, _ := message.Find[*message.SA](ps)
	ke, _ := message.Find[*message.KE](ps)
	tsi, tsr := selectors(ps)
	if offered == nil || tsi == nil || tsr == nil {
		return nil, nil, refuse(message.InvalidSyntax, "a payload is missing")
	}
	if len(s.children) >= maxChildren {
		return nil, nil, refuse(message.NoAdditionalSAs, "%d children", len(s.children))
	}
	var prefer Group
	if ke != nil {
		prefer = Group(ke.Group)
	}
	c, p, ok := choose(s.c.ESPProposals, offered, message.ProtocolESP, groups, prefer)
	if !ok {
		return nil, nil, refuse(message.NoProposalChosen, "no ESP proposal fits")
	}
	var out uint32
	for i := range offered.Proposals {
		if o := &offered.Proposals[i]; o.Number == p.Number && o.Protocol == p.Protocol && len(o.SPI) == 4 {
			out = binary.BigEndian.Uint32(o.SPI)
		}
	}
	if out == 0 {
		return nil, nil, refuse(message.InvalidSyntax, "no SPI")
	}
	var shared, public []byte
	if c.group != 0 {
		if ke == nil || Group(ke.Group) != c.group {
			e := refuse(message.InvalidKEPayload, "group %d is wanted", c.group)
			e.data = binary.BigEndian.AppendUint16(nil, uint16(c.group))
			return nil, nil, e
		}
		var err error
		if public, shared, err = c.group.answer(s.rand, ke.Data); err != nil {
			return nil, nil, refuse(message.InvalidSyntax, "%w", err)
		}
	}
	// "The responder [...] narrows". Section 2.9: TSi are the initiator's, so
	// for us the remote ones.
	ti, tr := narrow(tsi.Selectors, s.allowRemote), narrow(tsr.Selectors, s.allowLocal)
	if len(ti) == 0 || len(tr) == 0 {
		return nil, nil, refuse(message.TSUnacceptable, "traffic selectors %v and %v", tsi.Selectors, tsr.Selectors)
	}
	in := s.c.NewSPI()
	p.SPI = spiBytes(in)
	d := &childDeal{
		choice: c, secrets: secrets{ni: bytes.Clone(ni), nr: nr, shared: shared}, role: RoleResponder,
		in: in, out: out, tsi: ti, tsr: tr,
	}
	reply := []message.Payload{&message.SA{Proposals: []message.Proposal{p}}}
	if groups {
		reply = append(reply, &message.Nonce{Data: nr})
	}
	if public != nil {
		reply = append(reply, &message.KE{Group: uint16(c.group), Data: public})
	}
	return append(reply, &message.TS{Selectors: ti}, &message.TS{Responder: true, Selectors: tr}), d, nil
}

// acceptChild makes our half of a Child SA from the response to r.
func (s *Session) acceptChild(r *request, ps []message.Payload, ni, nr []byte) (*childDeal, error) {
	answer, ok := message.Find[*message.SA](ps)
	tsi, tsr := selectors(ps)
	if !ok || tsi == nil || tsr == nil {
		return nil, fmt.Errorf("a payload is missing: %w", message.ErrSyntax)
	}
	c, p, err := chosen(r.offered, answer)
	if err != nil {
		return nil, err
	}
	if len(p.SPI) != 4 || binary.BigEndian.Uint32(p.SPI) == 0 {
		return nil, fmt.Errorf("no SPI: %w", message.ErrSyntax)
	}
	var shared []byte
	if c.group != 0 {
		ke, ok := message.Find[*message.KE](ps)
		if !ok || r.ke == nil || c.group != r.ke.group || Group(ke.Group) != c.group {
			return nil, errChoice
		}
		if shared, err = r.ke.shared(ke.Data); err != nil {
			return nil, err
		}
	}
	if !within(tsi.Selectors, r.tsi) || !within(tsr.Selectors, r.tsr) {
		return nil, errors.New("the peer widened the traffic selectors")
	}
	return &childDeal{
		choice: c, secrets: secrets{ni: ni, nr: nr, shared: shared}, role: RoleInitiator,
		in: r.spi, out: binary.BigEndian.Uint32(p.SPI), tsi: tsi.Selectors, tsr: tsr.Selectors,
	}, nil
}

// startChild sends, to rekey a child or to make one in place of a lost one:
//
//	HDR, SK {[N(REKEY_SA),] SA, Ni, [KEi,] TSi, TSr} -->
func (s *Session) startChild(now time.Time, t task) {
	c := t.child
	if !t.standIn && (!s.has(c) || !c.live() || c.rekeying) {
		return
	}
	if c.contender(now).pending() {
		// The peer is about to finish; two of them would only collide.
		c.rekeyAt = s.retry(now, retryTemporary)
		return
	}
	proposals := s.espProposals()
	r := &request{
		kind: reqChild, spi: s.c.NewSPI(), nonce: s.rand.bytes(nonceLen), retried: t.retried,
		tsi: c.TSLocal, tsr: c.TSRemote, model: c,
	}
	r.offered = offer(proposals, message.ProtocolESP, spiBytes(r.spi), true)
	var ps []message.Payload
	if !t.standIn {
		c.rekeying, r.child = true, c
		ps = append(ps, &message.Notify{Protocol: message.ProtocolESP, SPI: spiBytes(c.InboundSPI), NotifyType: message.RekeySA})
	}
	ps = append(ps, r.offered, &message.Nonce{Data: r.nonce})
	if g := firstGroup(proposals, t.group, s.sa.group); g != 0 {
		r.ke = newKeyExchange(g, s.rand)
		ps = append(ps, &message.KE{Group: uint16(g), Data: r.ke.public()})
	}
	ps = append(ps, &message.TS{Selectors: r.tsi}, &message.TS{Responder: true, Selectors: r.tsr})
	s.send(now, s.sa, r, ps)
}

// firstGroup gives the group to send a key for: the one wanted, or the one that
// the IKE SA was made with, which the peer is known to take, or the first of
// the first proposal that has any; 0 for none.
func firstGroup(ps []Proposal, wanted, used Group) Group {
	if wanted != 0 {
		return wanted
	}
	for _, p := range ps {
		if slices.Contains(p.Groups, used) {
			return used
		}
	}
	for _, p := range ps {
		if len(p.Groups) > 0 {
			return p.Groups[0]
		}
	}
	return 0
}

// groupWanted reads INVALID_KE_PAYLOAD, 0 for a group that we do not offer.
func groupWanted(n *message.Notify, ps []Proposal) Group {
	if n.NotifyType != message.InvalidKEPayload || len(n.Data) != 2 {
		return 0
	}
	g := Group(binary.BigEndian.Uint16(n.Data))
	if !slices.ContainsFunc(ps, func(p Proposal) bool { return slices.Contains(p.Groups, g) }) {
		return 0
	}
	return g
}

// childResponse takes:
//
//	<-- HDR, SK {SA, Nr, [KEr,] TSi, TSr, [N(ADDITIONAL_KEY_EXCHANGE)]}
func (s *Session) childResponse(now time.Time, sa *ikeSA, r *request, ps []message.Payload) {
	old := r.child
	if old != nil {
		old.rekeying = false
	}
	if n := message.FindError(ps); n != nil {
		s.childRefused(now, r, n)
		return
	}
	f, err := s.nextKE(r, ps, func() (*following, error) {
		nonce, ok := message.Find[*message.Nonce](ps)
		if !ok {
			return nil, fmt.Errorf("no nonce: %w", message.ErrSyntax)
		}
		d, err := s.acceptChild(r, ps, r.nonce, nonce.Data)
		if err != nil {
			return nil, err
		}
		return &following{child: d, left: d.more}, nil
	})
	if err == nil && len(f.left) > 0 {
		if old != nil {
			old.rekeying = true
		}
		s.followUp(now, sa, r, f)
		return
	}
	if err != nil {
		// The peer has a child now that we cannot use.
		s.debug("child refused", err)
		broken := &child{Child: Child{InboundSPI: r.spi}, silent: true}
		s.children = append(s.children, broken)
		s.enqueue(task{kind: reqDeleteChild, child: broken})
		if old != nil && old.live() {
			old.rekeyAt = s.retry(now, retryRefused)
		}
		return
	}
	c := f.child.child(sa)
	c.Replaces = r.model.InboundSPI
	var theirs *peerRekey
	if old != nil {
		theirs = old.contender(now)
	}
	if theirs != nil && bytes.Compare(f.child.low(), theirs.low) < 0 {
		// "the SA created with the lowest of the four nonces [...] SHOULD be
		// closed by the endpoint that created it". Section 2.8.1. The owner
		// never hears of it, and the peer deletes the old one.
		c.silent = true
		s.addChild(now, c)
		s.enqueue(task{kind: reqDeleteChild, child: c})
		if theirs.pending() {
			// Should it never finish, the old one still has to be rekeyed.
			old.rekeyAt = s.retry(now, retryRefused)
		}
		return
	}
	s.addChild(now, c)
	if old == nil || !s.has(old) {
		return
	}
	if theirs.pending() {
		theirs.lost = true
	} else if theirs != nil {
		// The peer's loses, and the peer deletes it; ours takes the place.
		if k := theirs.child; k.live() {
			k.replaced, k.rekeyAt, k.deleteAt = true, time.Time{}, now.Add(replacedLifetime)
		}
	}
	// Until our deletion is on its way, requests to rekey it find it closing.
	old.replaced, old.rekeyAt = true, time.Time{}
	s.enqueue(task{kind: reqDeleteChild, child: old})
}

// childRefused takes an error in place of a Child SA.
func (s *Session) childRefused(now time.Time, r *request, n *message.Notify) {
	old := r.child
	if old != nil && (!s.has(old) || !old.live()) {
		return
	}
	switch g := groupWanted(n, s.espProposals()); {
	case g != 0 && !r.retried:
		s.queue = slices.Insert(s.queue, 0, task{kind: reqChild, child: r.model, standIn: old == nil, group: g, retried: true})
	case old == nil:
		// It was to stand in for one that the peer had lost.
		s.debug("no child", &NotifyError{n.NotifyType})
		if len(s.children) == 0 {
			s.farewell(now, s.sa, 0, &NotifyError{n.NotifyType})
		}
	case n.NotifyType == message.ChildSANotFound:
		// "it SHOULD silently delete the Child SA" and ask for a new one.
		// Section 2.25
		s.removeChild(old)
		s.enqueue(task{kind: reqChild, child: old, standIn: true})
	case n.NotifyType == message.TemporaryFailure || n.NotifyType == message.StateNotFound:
		old.rekeyAt = s.retry(now, retryTemporary)
	default:
		s.debug("child not rekeyed", &NotifyError{n.NotifyType})
		old.rekeyAt = s.retry(now, retryRefused)
	}
}

// handleCreateChild answers CREATE_CHILD_SA, whatever it is to create.
func (s *Session) handleCreateChild(now time.Time, sa *ikeSA, ps []message.Payload) ([]message.Payload, func()) {
	offered, ok1 := message.Find[*message.SA](ps)
	nonce, ok2 := message.Find[*message.Nonce](ps)
	var reply []message.Payload
	var refused *RefusalError
	switch {
	case !ok1 || !ok2:
		refused = refuse(message.InvalidSyntax, "a payload is missing")
	case sa != s.sa:
		refused = refuse(message.TemporaryFailure, "the IKE SA is on its way out")
	case offered.Proposals[0].Protocol == message.ProtocolIKE:
		reply, refused = s.handleRekeyIKE(now, sa, ps, offered, nonce.Data)
	default:
		reply, refused = s.handleChild(now, sa, ps, nonce.Data)
	}
	return s.answered(now, reply, refused)
}

// answered gives the answer to a request: reply, or what tells the refusal.
func (s *Session) answered(now time.Time, reply []message.Payload, refused *RefusalError) ([]message.Payload, func()) {
	if refused == nil {
		return reply, nil
	}
	if refused.Type == message.InvalidSyntax {
		return s.fatal(now, refused)
	}
	s.debug("refused", refused)
	return []message.Payload{refused.payload()}, nil
}

// handleChild answers a request for a new Child SA or the rekeying of one, by
// the rules of RFC 7296, Section 2.25.1.
func (s *Session) handleChild(now time.Time, sa *ikeSA, ps []message.Payload, ni []byte) ([]message.Payload, *RefusalError) {
	if sa.request != nil && (sa.request.kind == reqIKE || sa.request.kind == reqDeleteIKE) {
		return nil, refuse(message.TemporaryFailure, "the IKE SA is being rekeyed or closed")
	}
	var old *child
	if n := message.FindNotify(ps, message.RekeySA); n != nil {
		if n.Protocol != message.ProtocolESP || len(n.SPI) != 4 {
			return nil, refuse(message.InvalidSyntax, "rekeying of what?")
		}
		old = s.childByOutbound(binary.BigEndian.Uint32(n.SPI))
		if old == nil && sa.request != nil && sa.request.kind == reqChild {
			// It may be the one that we asked for and whose response is not
			// here yet; "not found" would make the peer forget it.
			return nil, refuse(message.TemporaryFailure, "a Child SA is being made")
		}
		if old == nil {
			e := refuse(message.ChildSANotFound, "no such child")
			e.spi = n.SPI
			return nil, e
		}
		if !old.live() {
			return nil, refuse(message.TemporaryFailure, "the child is being closed")
		}
		if p := old.peerRekey; p != nil && !p.pending() {
			return nil, refuse(message.TemporaryFailure, "the child is rekeyed already")
		}
	}
	reply, d, refused := s.answerChild(ps, ni, s.rand.bytes(nonceLen), true)
	if refused != nil {
		return nil, refused
	}
	if len(d.more) > 0 {
		return append(reply, sa.await(now, s.rand, &following{child: d, left: d.more, old: old})), nil
	}
	s.finishChild(now, sa, &following{child: d, old: old})
	return reply, nil
}

// finishChild adds the Child SA that the peer asked for, its key exchanges done.
func (s *Session) finishChild(now time.Time, sa *ikeSA, f *following) {
	c, old := f.child.child(sa), f.old
	if old != nil {
		c.Replaces = old.InboundSPI
		switch {
		case f.rekey != nil && f.rekey.lost:
			// Ours took the place meanwhile, and the peer deletes this one.
			c.silent, c.deleteAt = true, now.Add(replacedLifetime)
		case old.rekeying:
			// Both rekey it. Who keeps which is seen when our response is here.
			old.peerRekey = &peerRekey{low: f.child.low(), child: c}
		case s.has(old) && old.live():
			old.replaced, old.rekeyAt, old.deleteAt = true, time.Time{}, now.Add(replacedLifetime)
		}
	}
	s.addChild(now, c)
}

func (s *Session) childByOutbound(spi uint32) *child {
	for _, c := range s.children {
		if c.OutboundSPI == spi && spi != 0 {
			return c
		}
	}
	return nil
}
