package ike

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func TestBadConfigurations(t *testing.T) {
	good := newPair(t)
	range4 := []TrafficSelector{{Start: netip.MustParseAddr("10.0.0.2"), End: netip.MustParseAddr("10.0.0.1")}}
	for name, change := range map[string]func(*InitiatorConfig){
		"no NewSPI":            func(c *InitiatorConfig) { c.NewSPI = nil },
		"no identity":          func(c *InitiatorConfig) { c.Local = Identity{} },
		"no key of ours":       func(c *InitiatorConfig) { c.PrivateKey = nil },
		"no key of the peer's": func(c *InitiatorConfig) { c.PeerKey = nil },
		"short private key":    func(c *InitiatorConfig) { c.PrivateKey = c.PrivateKey[:32] },
		"short peer key":       func(c *InitiatorConfig) { c.PeerKey = c.PeerKey[:31] },
		"unknown cipher":       func(c *InitiatorConfig) { c.ESPProposals = []Proposal{{Ciphers: []esp.Algorithm{99}}} },
		"no cipher":            func(c *InitiatorConfig) { c.ESPProposals = []Proposal{{}} },
		"IKE without groups":   func(c *InitiatorConfig) { c.IKEProposals = []Proposal{{Ciphers: allCiphers, PRFs: []PRF{5}}} },
		"unknown group":        func(c *InitiatorConfig) { c.ESPProposals = []Proposal{{Ciphers: allCiphers, Groups: []Group{14}}} },
		"unknown PRF": func(c *InitiatorConfig) {
			c.IKEProposals = []Proposal{{Ciphers: allCiphers, PRFs: []PRF{4}, Groups: []Group{X25519}}}
		},
		"selector without a range": func(c *InitiatorConfig) { c.TSi = range4 },
		"negative interval":        func(c *InitiatorConfig) { c.RetransmitAfter = -1 },
	} {
		c := good.ic
		change(&c)
		if s, err := NewInitiator(c, good.now); err == nil || s != nil {
			t.Errorf("initiator: %s is accepted", name)
		}
	}
	for name, change := range map[string]func(*ResponderConfig){
		"no Lookup": func(c *ResponderConfig) { c.Lookup = nil },
		"no NewSPI": func(c *ResponderConfig) { c.NewSPI = nil },
		"bad TSr":   func(c *ResponderConfig) { c.TSr = range4 },
	} {
		c := good.rc
		change(&c)
		if r, err := NewResponder(c); err == nil || r != nil {
			t.Errorf("responder: %s is accepted", name)
		}
	}
}

// The zero value of each field works: crypto/rand, no logger, no lifetimes.
func TestZeroConfig(t *testing.T) {
	p := newPair(t, func(p *pair) {
		p.ic.Random, p.rc.Random = nil, nil
		p.ic.VendorIDs, p.rc.VendorIDs = nil, nil
	})
	p.establish()
}

func TestOtherVersions(t *testing.T) {
	p := newPair(t)
	b := slices.Clone(p.toR[0].msg)
	for _, tt := range []struct {
		version byte
		answer  bool
	}{{0x10, false}, {0x30, true}} {
		b[17] = tt.version
		p.r.Receive(p.now, b, "there", source)
		es := p.r.Events()
		if (len(es) == 1) != tt.answer {
			t.Fatalf("version %x: %v", tt.version, es)
		}
		if !tt.answer {
			continue
		}
		m, err := message.Parse(es[0].Event.(Send).Message)
		if err != nil || message.FindNotify(m.Payloads, message.InvalidMajorVersion) == nil || es[0].Event.(Send).Path != "there" {
			t.Fatalf("answer %v, %v", m, err)
		}
	}
}

func TestCriticalInInit(t *testing.T) {
	p := newPair(t)
	m, err := message.Parse(slices.Clone(p.toR[0].msg))
	if err != nil {
		t.Fatal(err)
	}
	m.Payloads = append(m.Payloads, &message.Unknown{PayloadType: 222, Critical: true})
	b, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.r.Receive(p.now, b, nil, source)
	es := p.r.Events()
	if len(es) != 1 || p.r.halfOpen != 0 {
		t.Fatalf("events %v", es)
	}
	m, _ = message.Parse(es[0].Event.(Send).Message)
	if n := message.FindNotify(m.Payloads, message.UnsupportedCriticalPayload); n == nil || n.Data[0] != 222 {
		t.Fatalf("answer %v", m)
	}
}

// A copy without the cookie slips through on one path, when the load is just at
// the threshold; the initiator goes on with the cookie it got on the other.
func TestCookieOvertakesCopy(t *testing.T) {
	p := newPair(t, func(p *pair) { p.rc.CookieThreshold = -1 })
	plain := p.toR[0]
	p.toResponder()
	p.toInitiator() // the cookie; a new request is on its way
	p.r.c.CookieThreshold = 64
	p.toR = append([]packet{plain}, p.toR...)
	p.toResponder()
	p.toI = nil // its answer is lost
	p.run()
	p.pass(5 * time.Second)
	p.wantOneChild()
	if len(p.r.byInit) != 1 || p.r.halfOpen != 0 {
		t.Fatalf("%d sessions, %d half open", len(p.r.byInit), p.r.halfOpen)
	}
}

// Cookies bound to the address we are seen from differ from path to path: the
// first is used, and another only when it leads nowhere.
func TestCookieForEachPath(t *testing.T) {
	p := newPair(t)
	demand := func(cookie string) {
		h, err := message.ParseHeader(p.raw[len(p.raw)-1])
		if err != nil {
			t.Fatal(err)
		}
		m := message.Message{Header: message.Header{
			InitiatorSPI: h.InitiatorSPI, Version: message.Version2, Exchange: message.IKESAInit, Flags: message.FlagResponse,
		}, Payloads: []message.Payload{&message.Notify{NotifyType: message.Cookie, Data: []byte(cookie)}}}
		b, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		p.i.Receive(p.now, b, nil)
		p.collect()
	}
	demand("A")
	if len(p.sends) != 2 {
		t.Fatalf("sent %q", p.sends)
	}
	demand("A")
	demand("B")
	if len(p.sends) != 2 {
		t.Fatalf("sent %q", p.sends)
	}
	p.now = p.i.NextTimeout()
	p.i.Advance(p.now)
	demand("B")
	if len(p.sends) != 4 || bytes.Equal(p.raw[2], p.raw[3]) {
		t.Fatalf("sent %q", p.sends)
	}
	// It does not go on for ever.
	for n := range 100 {
		p.now = p.now.Add(9 * time.Second)
		p.i.Advance(p.now)
		demand(string(rune('a' + n)))
	}
	if len(p.sends) > 100+maxRestarts {
		t.Fatalf("%d messages", len(p.sends))
	}
}

func TestHalfOpenLimit(t *testing.T) {
	p := newPair(t, func(p *pair) { p.rc.HalfOpenLimit = 3 })
	for range 9 {
		p.connect()
	}
	for len(p.toR) > 0 {
		p.toResponder()
	}
	if p.r.halfOpen != 3 || len(p.r.bySPI) != 3 {
		t.Fatalf("%d half-open", p.r.halfOpen)
	}
}

// Two clients; what happens to one does not concern the other.
func TestTwoClients(t *testing.T) {
	p := newPair(t, func(p *pair) {
		p.rc.Lookup = func(id Identity, key ed25519.PublicKey) (*Peer, error) {
			return &Peer{Name: string(id.Data), PublicKey: key}, nil
		}
	})
	p.establish()
	first := p.session()
	p.ic.Local, p.ic.NewSPI = fqdn("second"), spiCounter(0x5000)
	one := p.i
	p.connect()
	p.run()
	if len(p.r.Sessions()) != 2 {
		t.Fatalf("%d sessions", len(p.r.Sessions()))
	}
	for _, s := range p.r.Sessions() {
		if want := map[bool]string{true: "client", false: "second"}[s == first]; s.Peer().Name != want {
			t.Fatalf("peer %q, want %q", s.Peer().Name, want)
		}
	}
	p.i.Delete(p.now)
	p.run()
	if all := p.r.Sessions(); len(all) != 1 || all[0] != first || one.state != stateEstablished {
		t.Fatalf("%d sessions left", len(all))
	}
}

// A session that the Responder has forgotten can still be called.
func TestForgottenSession(t *testing.T) {
	p := newPair(t)
	p.establish()
	s := p.session()
	p.i.Delete(p.now)
	p.pass(time.Minute)
	s.Delete(p.now)
	s.RekeyChild(p.now)
	s.RekeyIKE(p.now)
	s.Liveness(p.now)
	s.Retransmit(p.now)
	s.Receive(p.now, p.raw[0], nil)
	s.Advance(p.now)
	if p.collect(); len(p.r.wakes)+p.r.halfOpen+len(p.r.bySPI) != 0 {
		t.Fatal("the session came back")
	}
}

// Without Assign the peer's own addresses are used, as TSi allows.
func TestWithoutAssign(t *testing.T) {
	office := []TrafficSelector{PrefixSelector(netip.MustParsePrefix("192.168.5.0/24"))}
	p := newPair(t, func(p *pair) { p.rc.Assign, p.rc.TSi, p.ic.Request = nil, office, nil })
	p.establish()
	if c := p.wantOneChild(); !slices.Equal(c.TSLocal, office) {
		t.Fatalf("selectors %v", c.TSLocal)
	}
}

// A peer cannot have more than its share.
func TestChildLimit(t *testing.T) {
	p := newPair(t)
	p.establish()
	c := p.i.children[0]
	for range 2 * maxChildren {
		p.i.startChild(p.now, task{kind: reqChild, child: c, standIn: true})
		p.run()
	}
	if n := len(p.session().children); n != maxChildren {
		t.Fatalf("%d children", n)
	}
}

func TestIKESALimit(t *testing.T) {
	p := newPair(t)
	p.establish()
	s := p.session()
	for range 20 {
		p.i.RekeyIKE(p.now)
		p.run()
	}
	if len(s.sas) > maxIKESAs || len(p.i.sas) > maxIKESAs {
		t.Fatalf("%d and %d IKE SAs", len(s.sas), len(p.i.sas))
	}
	p.pass(5 * time.Minute)
	p.i.RekeyIKE(p.now)
	p.run()
	p.wantOneChild()
	p.wantIdle()
}

func TestErrorTexts(t *testing.T) {
	if s := (&NotifyError{message.AuthenticationFailed}).Error(); s != "the peer answered AUTHENTICATION_FAILED" {
		t.Error(s)
	}
	if s := refuse(message.TSUnacceptable, "because").Error(); s != "refused with TS_UNACCEPTABLE: because" {
		t.Error(s)
	}
	if s := NotifyType(9999).String(); s != "notification 9999" {
		t.Error(s)
	}
}
