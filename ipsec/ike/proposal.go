package ike

import (
	"errors"
	"fmt"
	"slices"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// A PRF is a pseudorandom function by its IANA number.
type PRF uint16

// The pseudorandom functions implemented, RFC 4868.
const (
	PRFHMACSHA256 PRF = 5
	PRFHMACSHA384 PRF = 6
	PRFHMACSHA512 PRF = 7
)

// A Proposal lists what may be combined for an IKE SA or a Child SA, each list
// in order of preference.
type Proposal struct {
	Ciphers []esp.Algorithm
	PRFs    []PRF // IKE only

	// Groups are required in an IKE proposal. In an ESP proposal they ask for a
	// key exchange of its own at each rekeying (perfect forward secrecy); none
	// means that the keys come from the IKE SA alone.
	Groups []Group

	// Additional key exchanges follow the first, one for each list (RFC 9370). A
	// peer that does not know them needs another proposal without.
	Additional [][]Group

	// ESN is for ESP only: true asks for extended sequence numbers. Empty
	// means true, then false.
	ESN []bool
}

var allCiphers = []esp.Algorithm{esp.AES128GCM, esp.AES256GCM, esp.ChaCha20Poly1305}

// PostQuantum says whether keys have to be safe from quantum computers.
type PostQuantum uint8

// The choices of Config.PostQuantum.
const (
	// PreferPostQuantum offers ML-KEM-768 after the first key exchange, and goes
	// without it if the peer does not take it.
	PreferPostQuantum PostQuantum = iota
	// NeverPostQuantum saves the round trip that it takes to connect.
	NeverPostQuantum
	// RequirePostQuantum makes no IKE SA without it.
	RequirePostQuantum
)

// ikeProposals is what Config.IKEProposals is without a choice.
func (q PostQuantum) ikeProposals() []Proposal {
	classical := Proposal{
		Ciphers: allCiphers,
		PRFs:    []PRF{PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512},
		Groups:  []Group{X25519, P256},
	}
	hybrid := classical
	hybrid.Additional = [][]Group{{MLKEM768}}
	switch q {
	case NeverPostQuantum:
		return []Proposal{classical}
	case RequirePostQuantum:
		return []Proposal{hybrid}
	}
	return []Proposal{hybrid, classical}
}

// espProposals is what Config.ESPProposals is without a choice: it wants a key
// exchange at rekeying and goes without it if the peer does. Without one of its
// own a Child SA is as safe as the IKE SA that it comes from.
func (q PostQuantum) espProposals() []Proposal {
	groups := []Group{X25519, P256}
	hybrid := Proposal{Ciphers: allCiphers, Groups: groups, Additional: [][]Group{{MLKEM768}}}
	classical := []Proposal{{Ciphers: allCiphers, Groups: groups}, {Ciphers: allCiphers}}
	if q == NeverPostQuantum {
		return classical
	}
	return append([]Proposal{hybrid}, classical...)
}

// classical gives those without additional key exchanges.
func classical(ps []Proposal) []Proposal {
	return slices.DeleteFunc(slices.Clone(ps), func(p Proposal) bool { return len(p.Additional) > 0 })
}

func additional(ps []Proposal) bool {
	return slices.ContainsFunc(ps, func(p Proposal) bool { return len(p.Additional) > 0 })
}

func checkProposals(ps []Proposal, proto message.ProtocolID) error {
	if len(ps) > message.MaxProposals {
		return fmt.Errorf("%d proposals", len(ps))
	}
	for _, p := range ps {
		if len(p.Ciphers) == 0 || slices.ContainsFunc(p.Ciphers, func(a esp.Algorithm) bool { return !a.Valid() }) {
			return errors.New("a proposal without ciphers, or with unknown ones")
		}
		if slices.ContainsFunc(p.Groups, func(g Group) bool { return g.curve() == nil }) {
			return errors.New("a proposal with an unknown group")
		}
		if proto == message.ProtocolIKE && (len(p.PRFs) == 0 || len(p.Groups) == 0) {
			return errors.New("an IKE proposal without PRF or group")
		}
		if err := p.checkAdditional(); err != nil {
			return err
		}
		if slices.ContainsFunc(p.PRFs, func(f PRF) bool { return !f.valid() }) {
			return errors.New("a proposal with an unknown PRF")
		}
	}
	return nil
}

// checkAdditional wants each method once: "the responder MUST NOT select the same
// method more than once". RFC 9370, Section 2.2.1
func (p *Proposal) checkAdditional() error {
	if len(p.Additional) > int(message.TransformAdditionalKE7-message.TransformAdditionalKE1)+1 {
		return fmt.Errorf("%d additional key exchanges", len(p.Additional))
	}
	if len(p.Additional) > 0 && len(p.Groups) == 0 {
		return errors.New("additional key exchanges without a first one")
	}
	seen := slices.Clone(p.Groups)
	for _, list := range p.Additional {
		if len(list) == 0 {
			return errors.New("an additional key exchange without a method")
		}
		for _, g := range list {
			if g != MLKEM768 && g.curve() == nil || slices.Contains(seen, g) {
				return fmt.Errorf("%v as an additional key exchange", g)
			}
			seen = append(seen, g)
		}
	}
	return nil
}

// cipherTransform gives a cipher's transform ID and key length in bits, 0 for
// those with a fixed one.
func cipherTransform(a esp.Algorithm) (id uint16, bits int) {
	switch a {
	case esp.AES128GCM:
		return message.EncrAESGCM16, 128
	case esp.AES256GCM:
		return message.EncrAESGCM16, 256
	}
	return message.EncrChaCha20Poly1305, 0
}

func (p *Proposal) esn() []bool {
	if len(p.ESN) == 0 {
		return []bool{true, false}
	}
	return p.ESN
}

func esnID(on bool) uint16 {
	if on {
		return message.ESNYes
	}
	return message.ESNNo
}

// offer writes the proposals as an SA payload. Without groups, as in IKE_AUTH,
// proposals that differ by nothing else become one.
func offer(ps []Proposal, proto message.ProtocolID, spi []byte, groups bool) *message.SA {
	sa := new(message.SA)
	for _, p := range ps {
		w := message.Proposal{Number: uint8(len(sa.Proposals) + 1), Protocol: proto, SPI: spi}
		for _, c := range p.Ciphers {
			id, bits := cipherTransform(c)
			w.Transforms = append(w.Transforms, message.NewTransform(message.TransformEncryption, id, bits))
		}
		if proto == message.ProtocolIKE {
			for _, f := range p.PRFs {
				w.Transforms = append(w.Transforms, message.NewTransform(message.TransformPRF, uint16(f), 0))
			}
		}
		if groups {
			for _, g := range p.Groups {
				w.Transforms = append(w.Transforms, message.NewTransform(message.TransformKE, uint16(g), 0))
			}
			for i, list := range p.Additional {
				for _, g := range list {
					w.Transforms = append(w.Transforms, message.NewTransform(message.TransformAdditionalKE1+message.TransformType(i), uint16(g), 0))
				}
			}
		}
		if proto == message.ProtocolESP {
			for _, e := range p.esn() {
				w.Transforms = append(w.Transforms, message.NewTransform(message.TransformESN, esnID(e), 0))
			}
		}
		if !slices.ContainsFunc(sa.Proposals, func(o message.Proposal) bool { return sameTransforms(o.Transforms, w.Transforms) }) {
			sa.Proposals = append(sa.Proposals, w)
		}
	}
	return sa
}

func sameTransforms(a, b []message.Transform) bool {
	return slices.EqualFunc(a, b, func(x, y message.Transform) bool {
		xb, _ := x.KeyLength()
		yb, _ := y.KeyLength()
		return x.Type == y.Type && x.ID == y.ID && xb == yb
	})
}

// A choice is one algorithm of each kind.
type choice struct {
	cipher esp.Algorithm
	prf    PRF
	group  Group // 0 for none
	more   []Group
	esn    bool
}

// choose finds the first of our proposals that the peer offers too, and what
// to answer. groups is false in IKE_AUTH, where there is no key exchange of its
// own. prefer is the group that the peer has sent a key for: taking it, where
// we would take it at all, saves a round trip.
func choose(own []Proposal, offered *message.SA, proto message.ProtocolID, groups bool, prefer Group) (choice, message.Proposal, bool) {
	for i := range own {
		for j := range offered.Proposals {
			o := &offered.Proposals[j]
			if o.Protocol != proto {
				continue
			}
			if c, ts, ok := match(&own[i], o, groups, prefer); ok {
				return c, message.Proposal{Number: o.Number, Protocol: proto, Transforms: ts}, true
			}
		}
	}
	return choice{}, message.Proposal{}, false
}

// match picks one transform of each type. It has to answer with the types that
// were offered, no more and no fewer.
func match(own *Proposal, o *message.Proposal, groups bool, prefer Group) (c choice, ts []message.Transform, ok bool) {
	has := func(t message.TransformType, id uint16, bits int) bool {
		for i := range o.Transforms {
			b, ok := o.Transforms[i].KeyLength()
			if ok && o.Transforms[i].Type == t && o.Transforms[i].ID == id && b == bits {
				return true
			}
		}
		return false
	}
	offers := func(t message.TransformType) bool {
		return slices.ContainsFunc(o.Transforms, func(x message.Transform) bool { return x.Type == t })
	}
	pick := func(t message.TransformType, id uint16, bits int) {
		ts = append(ts, message.NewTransform(t, id, bits))
	}

	for i := range o.Transforms {
		// "If the responder receives a Transform Type it doesn't understand [...]
		// it MUST consider this proposal unacceptable". RFC 7296, Section 3.3.6
		t := o.Transforms[i].Type
		if t < message.TransformEncryption || t > message.TransformESN && !t.AdditionalKE() {
			return c, nil, false
		}
	}
	for _, a := range own.Ciphers {
		if id, bits := cipherTransform(a); has(message.TransformEncryption, id, bits) {
			c.cipher = a
			pick(message.TransformEncryption, id, bits)
			break
		}
	}
	if c.cipher == 0 {
		return c, nil, false
	}
	if offers(message.TransformPRF) != (o.Protocol == message.ProtocolIKE) {
		return c, nil, false
	}
	if o.Protocol == message.ProtocolIKE {
		for _, f := range own.PRFs {
			if has(message.TransformPRF, uint16(f), 0) {
				c.prf = f
				pick(message.TransformPRF, uint16(f), 0)
				break
			}
		}
		if c.prf == 0 {
			return c, nil, false
		}
	}
	if offers(message.TransformIntegrity) {
		// With an AEAD a proposal offers "no integrity algorithm or a single
		// integrity algorithm of NONE". RFC 7296, Section 3.3
		if !has(message.TransformIntegrity, 0, 0) {
			return c, nil, false
		}
		pick(message.TransformIntegrity, 0, 0)
	}
	switch {
	case groups && len(own.Groups) > 0:
		gs := own.Groups
		if slices.Contains(gs, prefer) {
			gs = append([]Group{prefer}, gs...)
		}
		for _, g := range gs {
			if has(message.TransformKE, uint16(g), 0) {
				c.group = g
				pick(message.TransformKE, uint16(g), 0)
				break
			}
		}
		if c.group == 0 {
			return c, nil, false
		}
	case has(message.TransformKE, 0, 0):
		pick(message.TransformKE, 0, 0)
	case groups && offers(message.TransformKE):
		return c, nil, false
	}
	if !c.matchAdditional(own, has, offers, pick, groups) {
		return c, nil, false
	}
	if o.Protocol == message.ProtocolESP {
		if !offers(message.TransformESN) {
			// Some leave it out when they have none.
			return c, ts, slices.Contains(own.esn(), false)
		}
		i := slices.IndexFunc(own.esn(), func(e bool) bool { return has(message.TransformESN, esnID(e), 0) })
		if i < 0 {
			return c, nil, false
		}
		c.esn = own.esn()[i]
		pick(message.TransformESN, esnID(c.esn), 0)
	}
	return c, ts, true
}

// matchAdditional picks the additional key exchanges: ours in their order, each
// in the first offered one that has it, and NONE, which has to be on offer, in
// all others.
func (c *choice) matchAdditional(own *Proposal, has func(message.TransformType, uint16, int) bool,
	offers func(message.TransformType) bool, pick func(message.TransformType, uint16, int), groups bool) bool {
	wanted := own.Additional
	if !groups {
		wanted = nil
	}
	for t := message.TransformAdditionalKE1; t <= message.TransformAdditionalKE7; t++ {
		if !offers(t) {
			continue
		}
		i := -1
		if len(wanted) > 0 {
			i = slices.IndexFunc(wanted[0], func(g Group) bool { return has(t, uint16(g), 0) })
		}
		switch {
		case i >= 0:
			c.more = append(c.more, wanted[0][i])
			pick(t, uint16(wanted[0][i]), 0)
			wanted = wanted[1:]
		case has(t, 0, 0):
			pick(t, 0, 0)
		case groups:
			return false
		}
	}
	return len(wanted) == 0
}

var errChoice = errors.New("the peer chose what was not offered")

// chosen reads the peer's answer to what we offered.
func chosen(offered *message.SA, answer *message.SA) (c choice, p *message.Proposal, err error) {
	if len(answer.Proposals) != 1 {
		return c, nil, errChoice
	}
	p = &answer.Proposals[0]
	i := slices.IndexFunc(offered.Proposals, func(o message.Proposal) bool { return o.Number == p.Number })
	if i < 0 || offered.Proposals[i].Protocol != p.Protocol {
		return c, nil, errChoice
	}
	o := &offered.Proposals[i]
	var seen, wanted [message.TransformAdditionalKE7 + 1]bool
	var more [message.TransformAdditionalKE7 + 1]Group
	for _, t := range o.Transforms {
		wanted[t.Type] = true
	}
	for _, t := range p.Transforms {
		none := t.ID == 0 && (t.Type == message.TransformIntegrity || t.Type == message.TransformKE && !wanted[message.TransformKE])
		if !none && !slices.ContainsFunc(o.Transforms, func(x message.Transform) bool {
			return sameTransforms([]message.Transform{x}, []message.Transform{t})
		}) {
			return c, nil, errChoice
		}
		if seen[t.Type] {
			return c, nil, errChoice
		}
		seen[t.Type] = true
		switch t.Type {
		case message.TransformEncryption:
			bits, _ := t.KeyLength()
			c.cipher = cipherByTransform(t.ID, bits)
		case message.TransformPRF:
			c.prf = PRF(t.ID)
		case message.TransformKE:
			c.group = Group(t.ID)
		case message.TransformESN:
			c.esn = t.ID == message.ESNYes
		}
		if t.Type.AdditionalKE() {
			more[t.Type] = Group(t.ID)
		}
	}
	for _, g := range more {
		if g != 0 {
			c.more = append(c.more, g)
		}
	}
	if wanted[message.TransformESN] && !seen[message.TransformESN] {
		// Left out means none, which we must have offered.
		seen[message.TransformESN] = slices.ContainsFunc(o.Transforms, func(x message.Transform) bool {
			return x.Type == message.TransformESN && x.ID == message.ESNNo
		})
	}
	for t := range wanted {
		if wanted[t] && !seen[t] {
			return c, nil, errChoice
		}
	}
	return c, p, nil
}

func cipherByTransform(id uint16, bits int) esp.Algorithm {
	for _, a := range allCiphers {
		if i, b := cipherTransform(a); i == id && b == bits {
			return a
		}
	}
	return 0
}
