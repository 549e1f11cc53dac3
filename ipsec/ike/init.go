package ike

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// hashIdentity is the "hash" of signature schemes that take the whole message,
// as Ed25519 does (RFC 8420, Section 2).
const hashIdentity = 5

// NewInitiator starts an exchange; IKE_SA_INIT waits in Events. It fails on a
// configuration that cannot work.
func NewInitiator(c InitiatorConfig, now time.Time) (*Session, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	s := &Session{
		c: c.Config, ini: &c, role: RoleInitiator, state: stateInit, rand: entropy{c.Random},
		allowLocal: c.TSi, allowRemote: c.TSr,
	}
	s.sa = &ikeSA{keyLog: c.KeyLog, initiator: true, spiI: s.newSPI()}
	s.addSA(s.sa)
	ni := s.rand.bytes(nonceLen)
	if c.Mark != nil {
		ni = append(ni, c.Mark(now, s.sa.spiI, ni)...)
	}
	s.first = &firstExchange{ni: ni, group: c.IKEProposals[0].Groups[0]}
	if s.c.RetransmitFor > 0 {
		s.first.giveUp = now.Add(s.c.RetransmitFor)
	}
	s.sendInit(now)
	return s, nil
}

// natDetection gives NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP.
// Their hashes of addresses and ports are false on purpose. We always
// encapsulate, and this package does not know by what; a hash that matches no
// address makes a peer that knows nothing of our encapsulations see a NAT, use
// UDP encapsulation, and answer to where our packets come from (RFC 7296,
// Section 2.23). Others do the same when UDP encapsulation is forced.
func (s *Session) natDetection() []message.Payload {
	return []message.Payload{
		&message.Notify{NotifyType: message.NATDetectionSourceIP, Data: s.rand.bytes(20)},
		&message.Notify{NotifyType: message.NATDetectionDestinationIP, Data: s.rand.bytes(20)},
	}
}

func (c *Config) vendorIDs() []message.Payload {
	var ps []message.Payload
	for _, v := range c.VendorIDs {
		ps = append(ps, &message.VendorID{Data: v})
	}
	return ps
}

func signatureHashes() message.Payload {
	return &message.Notify{NotifyType: message.SignatureHashAlgorithms, Data: []byte{0, hashSHA256, 0, hashSHA384, 0, hashSHA512, 0, hashIdentity}}
}

// sendInit sends, first or anew:
//
//	HDR(SPIi=xxx, SPIr=0), [N(COOKIE),] SAi1, KEi, Ni, N+, V* -->
//
// The SPI and the nonce stay the same throughout: a cookie may depend on both.
func (s *Session) sendInit(now time.Time) {
	f := s.first
	if f.ke == nil || f.ke.group != f.group {
		f.ke = newKeyExchange(f.group, s.rand)
	}
	r := &request{kind: reqInit, offered: offer(s.c.IKEProposals, message.ProtocolIKE, nil, true), giveUp: f.giveUp}
	var ps []message.Payload
	if f.cookie != nil {
		// "the notify payload [...] as the first payload". Section 2.6
		ps = append(ps, &message.Notify{NotifyType: message.Cookie, Data: f.cookie})
	}
	ps = append(ps, r.offered,
		&message.KE{Group: uint16(f.group), Data: f.ke.public()},
		&message.Nonce{Data: f.ni})
	ps = append(ps, s.natDetection()...)
	ps = append(ps, signatureHashes())
	ps = append(ps, s.c.fragmentation()...)
	if additional(s.c.IKEProposals) {
		ps = append(ps, &message.Notify{NotifyType: message.IntermediateSupported})
	}
	ps = append(ps, s.c.vendorIDs()...)
	m := message.Message{Header: s.sa.header(message.IKESAInit, 0, false), Payloads: ps}
	msg, err := m.AppendBinary(nil)
	if err != nil {
		s.close(now, err)
		return
	}
	f.request, r.msgs = msg, [][]byte{msg}
	s.launch(now, s.sa, r)
}

// initResponse takes:
//
//	<-- HDR(SPIi=xxx, SPIr=yyy), SAr1, KEr, Nr, [CERTREQ], N*, V*
//
// or a demand to ask differently. None of it is authenticated, so what is
// malformed is ignored; a good answer may still come.
func (s *Session) initResponse(now time.Time, sa *ikeSA, r *request, h *message.Header, msg []byte) {
	msg = bytes.Clone(msg)
	m, err := message.Parse(msg)
	if err != nil {
		s.debug("response dropped", err)
		return
	}
	f := s.first
	if s.restart(now, r, m.Payloads) {
		return
	}
	if n := message.FindError(m.Payloads); n != nil {
		// "the peer [...] MUST NOT immediately act based on the error
		// notification": anyone could have sent it. Section 2.21.1. So it is
		// believed if nothing better comes in the next few retransmissions.
		if f.refused == nil {
			f.refused = &NotifyError{n.NotifyType}
		}
		return
	}
	answer, ok1 := message.Find[*message.SA](m.Payloads)
	ke, ok2 := message.Find[*message.KE](m.Payloads)
	nonce, ok3 := message.Find[*message.Nonce](m.Payloads)
	if !ok1 || !ok2 || !ok3 || h.ResponderSPI == 0 {
		return
	}
	c, _, err := chosen(r.offered, answer)
	if err != nil || c.group != f.group || Group(ke.Group) != f.group {
		s.debug("response dropped", errChoice)
		return
	}
	if len(c.more) > 0 && message.FindNotify(m.Payloads, message.IntermediateSupported) == nil {
		s.debug("response dropped", errChoice)
		return
	}
	shared, err := f.ke.shared(ke.Data)
	if err != nil {
		s.debug("response dropped", err)
		return
	}
	f.response, f.nr = msg, nonce.Data
	s.learn(m.Payloads)
	sa.spiR = h.ResponderSPI
	sa.fragment = s.c.agreedFragment(m.Payloads)
	// SKEYSEED = prf(Ni | Nr, g^ir)
	seed := c.prf.sum(slices.Concat(f.ni, f.nr), shared)
	sa.setKeys(c, newIKEKeys(c.prf, c.cipher, seed, f.ni, f.nr, sa.spiI, sa.spiR))
	sa.request = nil
	s.state = stateAuth
	f.choice, f.left = c, c.more
	s.authenticate(now, sa)
}

// learn reads what both ends tell about themselves in IKE_SA_INIT.
func (s *Session) learn(ps []message.Payload) {
	for _, p := range ps {
		if v, ok := p.(*message.VendorID); ok && len(s.first.vendorIDs) < 16 {
			s.first.vendorIDs = append(s.first.vendorIDs, v.Data)
		}
	}
	s.childless = message.FindNotify(ps, message.ChildlessSupported) != nil
	if n := message.FindNotify(ps, message.SignatureHashAlgorithms); n != nil {
		for d := n.Data; len(d) >= 2; d = d[2:] {
			h := binary.BigEndian.Uint16(d)
			s.first.ed25519 = s.first.ed25519 || h == hashIdentity
			if len(s.first.hashes) < 16 {
				s.first.hashes = append(s.first.hashes, h)
			}
		}
	}
}

// restart obeys COOKIE and INVALID_KE_PAYLOAD. The request goes over several
// paths at once, so each demand may come several times, and with a cookie of
// its own for each address we are seen from: once a demand is met, further ones
// of its kind count only when the new request had no answer for one
// retransmission.
func (s *Session) restart(now time.Time, r *request, ps []message.Payload) bool {
	f := s.first
	if _, ok := message.Find[*message.SA](ps); ok {
		return false
	}
	if n := message.FindNotify(ps, message.Cookie); n != nil {
		// "between 1 and 64 octets in length". Section 2.6
		if len(n.Data) < 1 || len(n.Data) > 64 || bytes.Equal(n.Data, f.cookie) {
			return true
		}
		if (f.cookie == nil || r.tries > 1) && f.restarts < maxRestarts {
			f.restarts++
			f.cookie = n.Data
			s.sendInit(now)
		}
		return true
	}
	n := message.FindNotify(ps, message.InvalidKEPayload)
	if n == nil {
		return false
	}
	if len(n.Data) != 2 {
		return true
	}
	g := Group(binary.BigEndian.Uint16(n.Data))
	if g == f.group {
		return true // a late copy
	}
	// "the initiator MUST again propose its full set of acceptable
	// cryptographic suites". Section 1.2
	if !slices.ContainsFunc(s.c.IKEProposals, func(p Proposal) bool { return slices.Contains(p.Groups, g) }) {
		return false
	}
	if (f.group == s.c.IKEProposals[0].Groups[0] || r.tries > 1) && f.restarts < maxRestarts {
		f.restarts++
		f.group = g
		s.sendInit(now)
	}
	return true
}

// answerInit makes the response to IKE_SA_INIT at a responder; request, its
// own copy of the bytes, holds everything else given.
func (s *Session) answerInit(h *message.Header, request []byte, ps []message.Payload, c choice, p message.Proposal, public, shared, ni []byte) error {
	s.first = &firstExchange{request: request, ni: ni, nr: s.rand.bytes(nonceLen), choice: c, left: c.more}
	s.learn(ps)
	s.sa = &ikeSA{keyLog: s.c.KeyLog, spiI: h.InitiatorSPI, spiR: s.newSPI(), nextRecv: 1}
	out := []message.Payload{
		&message.SA{Proposals: []message.Proposal{p}},
		&message.KE{Group: uint16(c.group), Data: public},
		&message.Nonce{Data: s.first.nr},
	}
	if message.FindNotify(ps, message.NATDetectionSourceIP) != nil {
		out = append(out, s.natDetection()...)
	}
	out = append(out, signatureHashes())
	if s.sa.fragment = s.c.agreedFragment(ps); s.sa.fragment > 0 {
		out = append(out, s.c.fragmentation()...)
	}
	if message.FindNotify(ps, message.IntermediateSupported) != nil && additional(s.c.IKEProposals) {
		out = append(out, &message.Notify{NotifyType: message.IntermediateSupported})
	}
	// RFC 7670, Section 3: without a certification authority.
	out = append(out, &message.CertRequest{Encoding: message.CertRawPublicKey})
	out = append(out, s.c.authorities()...)
	out = append(out, &message.Notify{NotifyType: message.ChildlessSupported})
	out = append(out, s.c.vendorIDs()...)
	m := message.Message{Header: s.sa.header(message.IKESAInit, 0, true), Payloads: out}
	var err error
	if s.first.response, err = m.AppendBinary(nil); err != nil {
		return err
	}
	seed := c.prf.sum(slices.Concat(ni, s.first.nr), shared)
	s.sa.setKeys(c, newIKEKeys(c.prf, c.cipher, seed, ni, s.first.nr, s.sa.spiI, s.sa.spiR))
	s.addSA(s.sa)
	return nil
}
