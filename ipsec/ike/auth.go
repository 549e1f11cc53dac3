package ike

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// keyPad is what a shared key is first hashed with, RFC 7296, Section 2.15.
const keyPad = "Key Pad for IKEv2"

// ed25519Algorithm is the AlgorithmIdentifier of Ed25519 in DER (RFC 8420,
// Appendix A): SEQUENCE { OBJECT IDENTIFIER 1.3.101.112 }.
var ed25519Algorithm = []byte{0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70}

// ed25519SPKI comes before the 32 bytes of the key in a SubjectPublicKeyInfo
// (RFC 8410, Section 4): SEQUENCE { algorithm, BIT STRING with no unused bits }.
var ed25519SPKI = append(append([]byte{0x30, 0x2a}, ed25519Algorithm...), 0x03, 0x21, 0x00)

// signedOctets is what AUTH covers: the sender's own first message, the other
// end's nonce and the sender's identity (RFC 7296, Section 2.15).
//
//	InitiatorSignedOctets = RealMessage1 | NonceRData | MACedIDForI [| IntAuth]
//	ResponderSignedOctets = RealMessage2 | NonceIData | MACedIDForR [| IntAuth]
func (s *Session) signedOctets(sa *ikeSA, byInitiator bool, id *message.ID) []byte {
	f := s.first
	real, nonce, skp := f.request, f.nr, sa.keys.pi
	if !byInitiator {
		real, nonce, skp = f.response, f.ni, sa.keys.pr
	}
	b := append(bytes.Clone(real), nonce...)
	b = append(b, sa.prf.sum(skp, id.AppendRest(nil))...)
	return append(b, f.intAuth()...)
}

func sharedKeyAuth(p PRF, psk Secret, octets []byte) []byte {
	return p.sum(p.sum(psk, []byte(keyPad)), octets)
}

// prove makes our AUTH payload, and a CERT payload before it where there is a
// key to show.
func (s *Session) prove(sa *ikeSA, id *message.ID, usePSK, withCertificate bool, psk Secret) ([]message.Payload, error) {
	octets := s.signedOctets(sa, s.role == RoleInitiator, id)
	if usePSK {
		if len(psk) == 0 {
			return nil, errors.New("no shared key")
		}
		return []message.Payload{&message.Auth{Method: message.AuthSharedKey, Data: sharedKeyAuth(sa.prf, psk, octets)}}, nil
	}
	if chain, _ := s.c.certificate(); chain != nil && withCertificate {
		return s.certificateProof(octets)
	}
	if s.c.PrivateKey == nil {
		return nil, errors.New("no private key")
	}
	// "The authentication method MUST NOT be used" before the other end has
	// said that it knows the hash. RFC 7427, Section 4
	if !s.first.ed25519 {
		return nil, errors.New("the peer does not verify Ed25519 signatures")
	}
	pub := s.c.PrivateKey.Public().(ed25519.PublicKey)
	// ASN.1 Length (8), AlgorithmIdentifier, signature. RFC 7427, Section 3
	data := append([]byte{byte(len(ed25519Algorithm))}, ed25519Algorithm...)
	data = append(data, ed25519.Sign(s.c.PrivateKey, octets)...)
	return []message.Payload{
		&message.Cert{Encoding: message.CertRawPublicKey, Data: append(bytes.Clone(ed25519SPKI), pub...)},
		&message.Auth{Method: message.AuthDigitalSignature, Data: data},
	}, nil
}

// verify checks the peer's AUTH payload with its key or the shared key,
// whichever the method takes; those that must not be used are nil.
func (s *Session) verify(sa *ikeSA, id *message.ID, auth *message.Auth, key ed25519.PublicKey, psk Secret) error {
	octets := s.signedOctets(sa, s.role == RoleResponder, id)
	switch auth.Method {
	case message.AuthSharedKey:
		if len(psk) == 0 {
			return fmt.Errorf("shared keys are not for this peer: %w", ErrAuthentication)
		}
		if subtle.ConstantTimeCompare(auth.Data, sharedKeyAuth(sa.prf, psk, octets)) != 1 {
			return fmt.Errorf("shared keys differ: %w", ErrAuthentication)
		}
		return nil
	case message.AuthDigitalSignature:
		if len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("signatures are not for this peer: %w", ErrAuthentication)
		}
		sig, ok := bytes.CutPrefix(auth.Data, append([]byte{byte(len(ed25519Algorithm))}, ed25519Algorithm...))
		if !ok || !ed25519.Verify(key, octets, sig) {
			return fmt.Errorf("bad signature: %w", ErrAuthentication)
		}
		return nil
	}
	return fmt.Errorf("authentication method %d: %w", auth.Method, ErrAuthentication)
}

// rawKey finds an Ed25519 key among the certificates, nil if there is none.
func rawKey(ps []message.Payload) ed25519.PublicKey {
	for _, p := range ps {
		c, ok := p.(*message.Cert)
		if !ok || c.Encoding != message.CertRawPublicKey {
			continue
		}
		if k, ok := bytes.CutPrefix(c.Data, ed25519SPKI); ok && len(k) == ed25519.PublicKeySize {
			return ed25519.PublicKey(bytes.Clone(k))
		}
	}
	return nil
}

func sameKey(a, b ed25519.PublicKey) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

func wantsRawKey(ps []message.Payload) bool {
	for _, p := range ps {
		if c, ok := p.(*message.CertRequest); ok && c.Encoding == message.CertRawPublicKey {
			return true
		}
	}
	return false
}

func (i Identity) payload(responder bool) *message.ID {
	return &message.ID{Responder: responder, IDType: uint8(i.Type), Data: i.Data}
}

func identity(p *message.ID) Identity {
	return Identity{Type: IDType(p.IDType), Data: bytes.Clone(p.Data)}
}

func (i Identity) equal(o Identity) bool { return i.Type == o.Type && bytes.Equal(i.Data, o.Data) }

func findID(ps []message.Payload, t message.PayloadType) *message.ID {
	for _, p := range ps {
		if i, ok := p.(*message.ID); ok && i.Type() == t {
			return i
		}
	}
	return nil
}

// sendAuth sends:
//
//	HDR, SK {IDi, [CERT,] N(INITIAL_CONTACT), [CERTREQ,] [IDr,]
//	    AUTH, [CP(CFG_REQUEST),] SAi2, TSi, TSr} -->
func (s *Session) sendAuth(now time.Time, sa *ikeSA) {
	id := s.c.Local.payload(false)
	ps := []message.Payload{id}
	var auth []message.Payload // none asks for EAP
	if s.ini.Login == nil {
		certificate := len(s.c.Certificates) > 0
		usePSK := !certificate && (s.c.PrivateKey == nil || !s.first.ed25519 && len(s.c.PSK) > 0)
		proof, err := s.prove(sa, id, usePSK, certificate, s.c.PSK)
		if err != nil {
			s.close(now, err)
			return
		}
		ps, auth = append(ps, proof[:len(proof)-1]...), proof[len(proof)-1:]
	}
	// One client, one IKE SA: whatever is left of an earlier life may go.
	ps = append(ps, &message.Notify{NotifyType: message.InitialContact})
	ps = append(ps, s.mobikeOffer()...)
	ps = append(ps, s.enrolment()...)
	if s.ini.PeerKey != nil {
		ps = append(ps, &message.CertRequest{Encoding: message.CertRawPublicKey})
	}
	ps = append(ps, s.c.authorities()...)
	if s.ini.Remote != nil {
		ps = append(ps, s.ini.Remote.payload(true))
	}
	ps = append(ps, auth...)
	if s.ini.Request != nil {
		ps = append(ps, s.ini.Request.payload(message.ConfigRequest))
	}
	r := &request{kind: reqAuth, spi: s.c.NewSPI(), tsi: s.ini.TSi, tsr: s.ini.TSr}
	if !s.ini.Childless || !s.childless {
		r.offered = offer(s.c.ESPProposals, message.ProtocolESP, spiBytes(r.spi), false)
		ps = append(ps, r.offered, &message.TS{Selectors: r.tsi}, &message.TS{Responder: true, Selectors: r.tsr})
	}
	if s.ini.Login != nil {
		s.startLogin(r, id)
	}
	s.send(now, sa, r, ps)
}

// authResponse takes:
//
//	<-- HDR, SK {IDr, [CERT,] AUTH, [CP(CFG_REPLY),] SAr2, TSi, TSr}
func (s *Session) authResponse(now time.Time, sa *ikeSA, r *request, ps []message.Payload, rtt time.Duration) {
	if s.login != nil {
		s.loginResponse(now, sa, ps, rtt)
		return
	}
	id := findID(ps, message.TypeIDr)
	auth, _ := message.Find[*message.Auth](ps)
	refused := message.FindError(ps)
	if id == nil || auth == nil {
		if refused != nil {
			s.close(now, refusedWith(refused.NotifyType, ps))
			return
		}
		s.farewell(now, sa, message.InvalidSyntax, message.ErrSyntax)
		return
	}
	if err := s.checkResponder(now, sa, id, auth, ps); err != nil {
		s.farewell(now, sa, message.AuthenticationFailed, err)
		return
	}
	s.takeFirstChild(now, sa, r, id, ps, rtt)
}

// takeFirstChild takes what a responder that has proven itself says about
// addresses and the first Child SA; r is the request that asked for them.
func (s *Session) takeFirstChild(now time.Time, sa *ikeSA, r *request, id *message.ID, ps []message.Payload, rtt time.Duration) {
	if refused := message.FindError(ps); refused != nil {
		// The IKE SA stands but no Child SA does (RFC 7296, Section 1.2), and
		// without one it is of no use to us.
		s.farewell(now, sa, 0, &NotifyError{refused.NotifyType})
		return
	}
	var first *child
	if r.offered != nil {
		d, err := s.acceptChild(r, ps, s.first.ni, s.first.nr)
		if err != nil {
			s.farewell(now, sa, 0, err)
			return
		}
		first = d.child(sa)
	}
	if cp, ok := message.Find[*message.Config](ps); ok && cp.ConfigType == message.ConfigReply {
		s.configuration = configuration(cp)
	}
	s.remote = identity(id)
	s.learnMOBIKE(ps)
	sa.token = findToken(ps)
	s.established(now)
	s.emit(Established{Remote: s.remote, Configuration: s.configuration, VendorIDs: s.first.vendorIDs, RoundTrip: rtt})
	s.first = nil
	if first == nil {
		s.enqueue(task{kind: reqChild, standIn: true, child: &child{Child: Child{TSLocal: r.tsi, TSRemote: r.tsr}}})
		return
	}
	s.addChild(now, first)
}

// Childless reports that the responder knows RFC 6023.
func (s *Session) Childless() bool { return s.childless }

func (s *Session) checkResponder(now time.Time, sa *ikeSA, id *message.ID, auth *message.Auth, ps []message.Payload) error {
	shown := rawKey(ps)
	if s.ini.Remote != nil && !s.ini.Remote.equal(identity(id)) {
		return fmt.Errorf("the peer is %q: %w", id.Data, ErrAuthentication)
	}
	if len(s.c.Roots) > 0 || s.c.SystemRoots {
		return s.verifyCertificate(now, sa, id, auth, ps)
	}
	if s.ini.PeerKey == nil {
		return s.verify(sa, id, auth, nil, s.c.PSK)
	}
	if shown != nil && !sameKey(shown, s.ini.PeerKey) {
		return ErrPeerKey
	}
	return s.verify(sa, id, auth, s.ini.PeerKey, nil)
}

// farewell ends an IKE SA that the peer believes in: it tells why, or deletes,
// once, and does not wait for an answer (RFC 7296, Section 2.21.2).
func (s *Session) farewell(now time.Time, sa *ikeSA, t NotifyType, err error) {
	var p message.Payload = &message.Delete{Protocol: message.ProtocolIKE}
	if t != 0 {
		p = &message.Notify{NotifyType: t}
	}
	if b, sealErr := sa.seal(message.Informational, sa.nextSend, false, []message.Payload{p}); sealErr == nil {
		s.sendAll(b, nil, false)
	}
	s.close(now, err)
}

// handleAuth answers IKE_AUTH at a responder.
func (s *Session) handleAuth(now time.Time, sa *ikeSA, ps []message.Payload) ([]message.Payload, func()) {
	rc := &s.resp.c
	if s.login != nil {
		return s.handleLogin(now, sa, ps)
	}
	id := findID(ps, message.TypeIDi)
	auth, _ := message.Find[*message.Auth](ps)
	if id == nil {
		return s.fatal(now, refuse(message.InvalidSyntax, "no IDi"))
	}
	if auth == nil && rc.Logins != nil {
		return s.offerLogin(now, sa, id, ps)
	}
	if auth == nil {
		return s.fatal(now, refuse(message.AuthenticationFailed, "no AUTH payload: %w", ErrAuthentication))
	}
	s.remote = identity(id)
	key := rawKey(ps)
	peer, err := rc.Lookup(s.remote, key)
	if err != nil && key != nil {
		peer, err = s.enrol(sa, id, auth, key, ps, err)
	}
	if err == nil && peer == nil {
		err = errors.New("unknown peer")
	}
	if err != nil {
		reply, end := s.fatal(now, refuse(message.AuthenticationFailed, "%q: %w", id.Data, err))
		return append(reply, reasonOf(err)...), end
	}
	if key != nil && peer.PublicKey != nil && !sameKey(key, peer.PublicKey) {
		return s.fatal(now, refuse(message.AuthenticationFailed, "%q: %w", id.Data, ErrPeerKey))
	}
	byCertificate := peer.Certificate && key == nil && showsCertificate(ps)
	if byCertificate {
		err = s.verifyCertificate(now, sa, id, auth, ps)
	} else {
		err = s.verify(sa, id, auth, peer.PublicKey, peer.PSK)
	}
	if err != nil {
		return s.fatal(now, refuse(message.AuthenticationFailed, "%q: %w", id.Data, err))
	}
	// A peer that proved itself by a shared key expects the same of us unless
	// it asks for a raw public key.
	usePSK := auth.Method == message.AuthSharedKey && !wantsRawKey(ps) || s.c.PrivateKey == nil
	psk := peer.PSK
	if len(psk) == 0 {
		psk = s.c.PSK
	}
	local := s.c.Local
	if peer.Local != nil {
		local = *peer.Local
	}
	idr := local.payload(true)
	// Who proves itself by a certificate expects one.
	proof, err := s.prove(sa, idr, usePSK && !byCertificate, byCertificate, psk)
	if err != nil {
		return s.fatal(now, refuse(message.AuthenticationFailed, "%q: %w", id.Data, err))
	}
	return s.admit(now, sa, peer, ps, append([]message.Payload{idr}, proof...)), nil
}

// admit takes up a peer that has proven itself; ps is the request that asks for
// addresses and the first Child SA, reply is what our own proof is in.
func (s *Session) admit(now time.Time, sa *ikeSA, peer *Peer, ps, reply []message.Payload) []message.Payload {
	s.peer = peer
	if message.FindNotify(ps, message.InitialContact) != nil {
		s.resp.initialContact(now, s)
	}
	more, c := s.firstChild(sa, ps)
	reply = append(reply, more...)
	if s.learnMOBIKE(ps); s.mobike {
		reply = append(reply, &message.Notify{NotifyType: message.MOBIKESupported})
	}
	reply = append(reply, s.tokenPayload(sa.spiI, sa.spiR)...)

	s.established(now)
	s.resp.sessionEstablished(s)
	s.emit(Established{Peer: peer, Remote: s.remote, Configuration: s.configuration, VendorIDs: s.first.vendorIDs})
	if c != nil {
		s.addChild(now, c)
	}
	s.first = nil
	return reply
}

// firstChild answers the part of IKE_AUTH that is about addresses and the
// first Child SA. Whatever fails here leaves the IKE SA as it is (RFC 7296,
// Section 1.2).
func (s *Session) firstChild(sa *ikeSA, ps []message.Payload) ([]message.Payload, *child) {
	rc := &s.resp.c
	s.allowLocal, s.allowRemote = rc.TSr, rc.TSi
	cp, ok := message.Find[*message.Config](ps)
	ok = ok && cp.ConfigType == message.ConfigRequest
	var reply []message.Payload
	switch {
	case rc.Assign != nil && !ok:
		// Without an address of ours the peer could speak for any of them.
		return []message.Payload{refuse(message.FailedCPRequired, "").payload()}, nil
	case rc.Assign != nil:
		conf, err := rc.Assign(s.peer, configuration(cp))
		if err != nil {
			s.debug("no address", err)
			return []message.Payload{refuse(message.InternalAddressFailure, "").payload()}, nil
		}
		s.configuration = conf
		s.allowRemote = conf.selectors()
		reply = append(reply, conf.payload(message.ConfigReply))
	}
	if _, ok := message.Find[*message.SA](ps); !ok {
		return reply, nil // RFC 6023: the Child SA comes later
	}
	more, d, refused := s.answerChild(ps, s.first.ni, s.first.nr, false)
	if refused != nil {
		s.debug("no child", refused)
		return []message.Payload{refused.payload()}, nil
	}
	return append(reply, more...), d.child(sa)
}
