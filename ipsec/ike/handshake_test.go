package ike

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func TestHandshake(t *testing.T) {
	p := newPair(t)
	// HDR, SAi1, KEi, Ni -->
	// <-- HDR, SAr1, KEr, Nr
	// HDR, SK {IDi, CERT, N(INITIAL_CONTACT), CERTREQ, AUTH, CP, SAi2, TSi, TSr} -->
	// <-- HDR, SK {IDr, CERT, AUTH, CP, SAr2, TSi, TSr}
	p.establish()
	want := []string{
		"I IKE_SA_INIT request 0", "R IKE_SA_INIT response 0",
		"I IKE_AUTH request 1", "R IKE_AUTH response 1",
	}
	if !slices.Equal(p.sends, want) {
		t.Fatalf("sent %q", p.sends)
	}
	ei, er := find[Established](p.eventsI), find[Established](p.responderEvents())
	if len(ei) != 1 || len(er) != 1 {
		t.Fatalf("%d and %d Established", len(ei), len(er))
	}
	if !ei[0].Remote.equal(fqdn("server")) || !er[0].Remote.equal(fqdn("client")) || er[0].Peer.Name != "client" {
		t.Fatalf("identities: %v, %v", ei[0], er[0])
	}
	if a, ok := ei[0].Configuration.Address(InternalHomeAgent4); !ok || a != netip.MustParseAddr("10.7.0.1") {
		t.Fatalf("home agent %v", a)
	}
	if string(ei[0].VendorIDs[0]) != "server vendor" || string(er[0].VendorIDs[0]) != "client vendor" {
		t.Fatal("vendor IDs")
	}
	c := p.wantOneChild()
	if c.Algorithm != esp.AES128GCM || !c.ESN || c.Replaces != 0 {
		t.Fatalf("child %v", c)
	}
	// TSi is narrowed to the address assigned, TSr is not narrowed.
	if len(c.TSLocal) != 1 || c.TSLocal[0] != PrefixSelector(netip.MustParsePrefix("10.7.0.2/32")) || len(c.TSRemote) != 2 {
		t.Fatalf("selectors %v %v", c.TSLocal, c.TSRemote)
	}
	p.wantIdle()
	// The owner has the child before the peer can use it.
	if _, ok := p.eventsR[0].Event.(Established); !ok {
		t.Fatalf("first event at the responder is %T", p.eventsR[0].Event)
	}
}

func TestSharedKey(t *testing.T) {
	psk := Secret("a shared key")
	for _, tt := range []struct {
		name         string
		change       func(*pair)
		wantI, wantR error
	}{
		{"shared key on both sides, though the responder has a private key too", func(p *pair) {
			p.ic.PrivateKey, p.ic.PeerKey, p.ic.PSK = nil, nil, psk
		}, nil, nil},
		{"initiator by shared key, responder by raw key", func(p *pair) {
			p.ic.PrivateKey, p.ic.PSK = nil, psk
		}, nil, nil},
		{"initiator by raw key, responder by shared key", func(p *pair) {
			p.ic.PeerKey, p.ic.PSK, p.rc.PrivateKey = nil, psk, nil
		}, nil, nil},
		{"wrong shared key", func(p *pair) {
			p.ic.PrivateKey, p.ic.PeerKey, p.ic.PSK = nil, nil, Secret("a guess")
		}, &NotifyError{message.AuthenticationFailed}, ErrAuthentication},
		{"responder's shared key is another", func(p *pair) {
			p.ic.PeerKey, p.ic.PSK, p.rc.PrivateKey = nil, Secret("other"), nil
		}, ErrAuthentication, &NotifyError{message.AuthenticationFailed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, func(p *pair) {
				p.rc.Lookup = func(Identity, ed25519.PublicKey) (*Peer, error) {
					return &Peer{Name: "x", PSK: psk, PublicKey: public(testKey(1))}, nil
				}
			}, tt.change)
			if tt.wantI == nil {
				p.establish()
				return
			}
			p.run()
			wantError(t, "initiator", p.closedI(), tt.wantI)
			wantError(t, "responder", p.closedR(), tt.wantR)
		})
	}
}

// The first Child SA is made after IKE_AUTH if the initiator likes (RFC 6023).
func TestChildless(t *testing.T) {
	for _, hybridised := range []bool{false, true} {
		also := func(*pair) {}
		if hybridised {
			also = hybrid
		}
		p := newPair(t, also, func(p *pair) { p.ic.Childless = true })
		p.establish()
		if !p.i.Childless() {
			t.Error("the responder does not say that it knows how")
		}
		if want := "I CREATE_CHILD_SA request 2"; !hybridised && !slices.Contains(p.sends, want) {
			t.Errorf("sent %q", p.sends)
		}
		c := p.wantOneChild()
		if len(c.TSLocal) != 1 || c.TSLocal[0] != PrefixSelector(netip.MustParsePrefix("10.7.0.2/32")) {
			t.Errorf("selectors %v", c.TSLocal)
		}
		p.wantIdle()
	}
	p := newPair(t, func(p *pair) {
		p.ic.Childless = true
		p.rc.ESPProposals = []Proposal{{Ciphers: []esp.Algorithm{esp.ChaCha20Poly1305}}}
		p.ic.ESPProposals = []Proposal{{Ciphers: []esp.Algorithm{esp.AES256GCM}}}
	})
	p.run()
	wantError(t, "initiator", p.closedI(), &NotifyError{message.NoProposalChosen})
}

// wantError compares by errors.Is, and notifications by type.
func wantError(t *testing.T, who string, got, want error) {
	t.Helper()
	var n, m *NotifyError
	if errors.As(want, &n) {
		if !errors.As(got, &m) || m.Type != n.Type {
			t.Fatalf("%s: %v, want %v", who, got, want)
		}
		return
	}
	if !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", who, got, want)
	}
}

func TestRefusals(t *testing.T) {
	failed := &NotifyError{message.AuthenticationFailed}
	for _, tt := range []struct {
		name         string
		change       func(*pair)
		wantI, wantR error
	}{
		{"unknown peer", func(p *pair) { p.ic.Local = fqdn("stranger") }, failed, nil},
		{"wrong key for a known name", func(p *pair) { p.ic.PrivateKey = testKey(9) }, failed, ErrPeerKey},
		{"shown key is not the one that signs", func(p *pair) {
			k := slices.Clone(testKey(9))
			copy(k[32:], public(testKey(1)))
			p.ic.PrivateKey = k
		}, failed, ErrAuthentication},
		{"the server's key is not the pinned one", func(p *pair) { p.ic.PeerKey = public(testKey(9)) }, ErrPeerKey, failed},
		{"the server signs with another key than it shows", func(p *pair) {
			k := slices.Clone(testKey(9))
			copy(k[32:], public(testKey(2)))
			p.rc.PrivateKey = k
		}, ErrAuthentication, failed},
		{"the server has another name", func(p *pair) { id := fqdn("other"); p.ic.Remote = &id }, ErrAuthentication, failed},
		{"no ESP proposal fits", func(p *pair) {
			p.ic.ESPProposals = []Proposal{{Ciphers: []esp.Algorithm{esp.AES256GCM}}}
			p.rc.ESPProposals = []Proposal{{Ciphers: []esp.Algorithm{esp.ChaCha20Poly1305}}}
		}, &NotifyError{message.NoProposalChosen}, nil},
		{"no address left", func(p *pair) {
			p.rc.Assign = func(*Peer, Configuration) (Configuration, error) { return nil, errors.New("empty") }
		}, &NotifyError{message.InternalAddressFailure}, nil},
		{"no address asked for", func(p *pair) { p.ic.Request = nil }, &NotifyError{message.FailedCPRequired}, nil},
		{"selectors that have nothing in common", func(p *pair) {
			p.rc.TSr = []TrafficSelector{PrefixSelector(netip.MustParsePrefix("192.168.0.0/16"))}
			p.ic.TSr = []TrafficSelector{PrefixSelector(netip.MustParsePrefix("172.16.0.0/12"))}
		}, &NotifyError{message.TSUnacceptable}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, tt.change)
			p.run()
			wantError(t, "initiator", p.closedI(), tt.wantI)
			if tt.wantR != nil {
				wantError(t, "responder", p.closedR(), tt.wantR)
			}
			if len(find[Established](p.eventsI)) > 0 || len(find[ChildCreated](p.eventsI)) > 0 {
				t.Fatal("the initiator was established")
			}
			if len(p.r.Sessions()) != 0 {
				t.Fatal("the responder keeps a session")
			}
			// Nothing is left after a while, and then everything is possible again.
			p.pass(time.Minute)
			if len(p.r.bySPI)+len(p.r.byInit)+len(p.r.byRemote)+len(p.r.wakes)+p.r.halfOpen != 0 {
				t.Fatalf("left at the responder: %d %d %d %d %d", len(p.r.bySPI), len(p.r.byInit), len(p.r.byRemote), len(p.r.wakes), p.r.halfOpen)
			}
		})
	}
}

func TestNoIKEProposal(t *testing.T) {
	p := newPair(t, func(p *pair) {
		p.ic.IKEProposals = []Proposal{{Ciphers: []esp.Algorithm{esp.AES256GCM}, PRFs: []PRF{PRFHMACSHA512}, Groups: []Group{X25519}}}
		p.rc.IKEProposals = []Proposal{{Ciphers: []esp.Algorithm{esp.AES128GCM}, PRFs: []PRF{PRFHMACSHA512}, Groups: []Group{X25519}}}
	})
	p.run()
	if len(find[Closed](p.eventsI)) != 0 {
		t.Fatal("an answer that anyone could forge ended the attempt at once")
	}
	p.pass(5 * time.Second)
	wantError(t, "initiator", p.closedI(), &NotifyError{message.NoProposalChosen})
}

// A forged refusal that comes before the true answer changes nothing.
func TestForgedRefusal(t *testing.T) {
	p := newPair(t)
	h, _ := message.ParseHeader(p.toR[0].msg)
	forged := message.Message{Header: message.Header{
		InitiatorSPI: h.InitiatorSPI, Version: message.Version2, Exchange: message.IKESAInit, Flags: message.FlagResponse,
	}, Payloads: []message.Payload{&message.Notify{NotifyType: message.NoProposalChosen}}}
	b, err := forged.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.i.Receive(p.now, b, nil)
	p.establish()
}

func TestInvalidKE(t *testing.T) {
	p := newPair(t, func(p *pair) {
		p.ic.IKEProposals = NeverPostQuantum.ikeProposals()
		p.ic.IKEProposals[0].Groups = []Group{X25519, P256}
		p.rc.IKEProposals = NeverPostQuantum.ikeProposals()
		p.rc.IKEProposals[0].Groups = []Group{P256}
		p.rc.CookieThreshold = -1
	})
	// HDR, SAi1, KEi(31), Ni -->
	// <-- HDR, N(COOKIE)
	// HDR, N(COOKIE), SAi1, KEi(31), Ni -->
	// <-- HDR, N(INVALID_KE_PAYLOAD, 19)
	// HDR, N(COOKIE), SAi1, KEi(19), Ni -->
	// <-- HDR, SAr1, KEr, Nr
	p.establish()
	if len(p.sends) != 8 {
		t.Fatalf("sent %q", p.sends)
	}
	for n, want := range map[int]bool{0: false, 2: true, 4: true} {
		m, err := message.Parse(p.raw[n])
		if err != nil {
			t.Fatal(err)
		}
		_, isNotify := m.Payloads[0].(*message.Notify)
		if isNotify != want {
			t.Fatalf("message %d: cookie first is %v", n, isNotify)
		}
	}
}

func TestEveryCipher(t *testing.T) {
	for _, a := range allCiphers {
		for _, f := range []PRF{PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512} {
			for _, g := range []Group{X25519, P256} {
				p := newPair(t, func(p *pair) {
					p.ic.IKEProposals = []Proposal{{Ciphers: []esp.Algorithm{a}, PRFs: []PRF{f}, Groups: []Group{g}}}
					p.ic.ESPProposals = []Proposal{{Ciphers: []esp.Algorithm{a}, ESN: []bool{false}}}
				})
				p.establish()
				if c := p.wantOneChild(); c.Algorithm != a || c.ESN {
					t.Fatalf("child %v", c)
				}
				p.i.RekeyIKE(p.now)
				p.run()
				p.wantAgreement()
			}
		}
	}
}

// The initiator's first requests go over every encapsulation at once.
func TestRacing(t *testing.T) {
	p := newPair(t, func(p *pair) { p.paths = []Path{"udp", "tcp", "websocket"} })
	p.establish()
	// Each copy was answered where it came from, with the same bytes.
	answers := map[string][][]byte{}
	for i, s := range p.sends {
		answers[s] = append(answers[s], p.raw[i])
	}
	for _, s := range []string{"R IKE_SA_INIT response 0", "R IKE_AUTH response 1"} {
		if len(answers[s]) != 3 {
			t.Fatalf("%d of %s", len(answers[s]), s)
		}
		for _, b := range answers[s] {
			if !bytes.Equal(b, answers[s][0]) {
				t.Fatalf("%s differ", s)
			}
		}
	}
	if len(answers["I IKE_SA_INIT request 0"]) != 1 || len(answers["I IKE_AUTH request 1"]) != 1 {
		t.Fatalf("sent %q", p.sends)
	}
	if n := len(find[ChildCreated](p.responderEvents())); n != 1 || len(p.r.byInit) != 1 {
		t.Fatalf("%d children, %d half-open", n, len(p.r.byInit))
	}
}

func TestAnswerGoesWhereTheRequestCameFrom(t *testing.T) {
	p := newPair(t, func(p *pair) { p.paths = []Path{"udp", "tcp"} })
	p.toResponder()
	p.toResponder()
	if len(p.toI) != 2 || p.toI[0].path != "udp" || p.toI[1].path != "tcp" {
		t.Fatalf("answers %v", p.toI)
	}
}

// A copy of IKE_SA_INIT that a slow path brings when all is done is answered
// from the cache and makes nothing.
func TestLateCopies(t *testing.T) {
	p := newPair(t)
	late := p.toR[0]
	p.establish()
	lateResponse := p.raw[1]
	sends := len(p.sends)
	p.toR = append(p.toR, packet{late.msg, "slow"})
	p.toI = append(p.toI, packet{lateResponse, "slow"}, packet{p.raw[3], "slow"})
	p.run()
	if len(p.sends) != sends+1 || !bytes.Equal(p.raw[sends], lateResponse) {
		t.Fatalf("sent %q", p.sends[sends:])
	}
	p.wantOneChild()
	p.wantIdle()
}

func TestCookieUnderLoad(t *testing.T) {
	p := newPair(t, func(p *pair) { p.rc.CookieThreshold = 2; p.rc.HalfOpenLimit = 4 })
	first := p.i
	var flood []*Session
	for range 3 {
		p.connect()
		flood = append(flood, p.i)
	}
	_ = flood
	// Two fit; the third and fourth are asked for a cookie.
	for len(p.toR) > 0 {
		p.toResponder()
	}
	if got := p.r.halfOpen; got != 2 {
		t.Fatalf("%d half-open SAs", got)
	}
	cookies := 0
	for _, k := range p.toI {
		m, err := message.Parse(k.msg)
		if err != nil {
			t.Fatal(err)
		}
		if message.FindNotify(m.Payloads, message.Cookie) != nil {
			cookies++
			if len(k.msg) > 100 || m.ResponderSPI != 0 {
				t.Fatalf("cookie message of %d bytes", len(k.msg))
			}
		}
	}
	if cookies != 2 {
		t.Fatalf("%d cookies", cookies)
	}
	// The last initiator brings the cookie back and is served.
	p.run()
	if p.i.state != stateEstablished {
		t.Fatalf("initiator is %v", p.i.state)
	}
	// The first never goes on; its place is free after a while.
	if first.state != stateInit {
		t.Fatal("the first initiator got an answer")
	}
	p.pass(31 * time.Second)
	if p.r.halfOpen != 0 || len(p.r.bySPI) != 1 {
		t.Fatalf("%d half-open, %d SPIs", p.r.halfOpen, len(p.r.bySPI))
	}
}

// One cookie opens one half-open SA, whatever else the request says.
func TestCookieBuysOne(t *testing.T) {
	p := newPair(t, func(p *pair) { p.rc.CookieThreshold = -1 })
	p.toResponder()
	p.toInitiator()
	withCookie := p.toR[0].msg
	p.toResponder()
	if p.r.halfOpen != 1 {
		t.Fatalf("%d half-open", p.r.halfOpen)
	}
	m, err := message.Parse(bytes.Clone(withCookie))
	if err != nil {
		t.Fatal(err)
	}
	m.Payloads = append(m.Payloads, &message.VendorID{Data: []byte("variant")})
	b, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	sends := len(p.sends)
	p.toR = append(p.toR, packet{b, "forged"})
	p.toResponder()
	if p.r.halfOpen != 1 || len(p.sends) != sends {
		t.Fatalf("%d half-open, sent %q", p.r.halfOpen, p.sends[sends:])
	}
	p.establish()
}

func TestCookieSecretRotates(t *testing.T) {
	var j cookieJar
	e := entropy{seeded(7)}
	now := time.Unix(0, 0)
	ni := bytes.Repeat([]byte{1}, 32)
	c := j.bake(now, e, ni, 5)
	for _, tt := range []struct {
		name  string
		after time.Duration
		spi   uint64
		want  bool
	}{
		{"at once", 0, 5, true},
		{"for another SPI", 0, 6, false},
		{"after one rotation", 61 * time.Second, 5, true},
		{"after two", 122 * time.Second, 5, false},
	} {
		if got := j.good(now.Add(tt.after), e, c, ni, tt.spi); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestLossInTheHandshake(t *testing.T) {
	for _, lost := range []string{
		"I IKE_SA_INIT request 0", "R IKE_SA_INIT response 0", "I IKE_AUTH request 1", "R IKE_AUTH response 1",
	} {
		t.Run(lost, func(t *testing.T) {
			var p *pair
			dropped := 0
			p = newPair(t, func(p *pair) {
				p.lose = func(Role, message.Header) bool {
					if p.sends[len(p.sends)-1] == lost && dropped < 2 {
						dropped++
						return true
					}
					return false
				}
			})
			p.pass(10 * time.Second)
			p.wantOneChild()
			if dropped != 2 {
				t.Fatalf("dropped %d", dropped)
			}
			first := map[string][]byte{}
			for i, s := range p.sends {
				if first[s] == nil {
					first[s] = p.raw[i]
				}
				if !bytes.Equal(first[s], p.raw[i]) {
					t.Fatalf("%s changed when sent again", s)
				}
			}
		})
	}
}

func TestSilentPeer(t *testing.T) {
	p := newPair(t, func(p *pair) { p.lose = func(Role, message.Header) bool { return true } })
	start := p.now
	var at []time.Duration
	for n := len(p.sends); len(find[Closed](p.eventsI)) == 0; n = len(p.sends) {
		if !p.next() {
			t.Fatal("no timer")
		}
		if len(p.sends) > n {
			at = append(at, p.now.Sub(start))
		}
	}
	wantError(t, "initiator", p.closedI(), ErrTimeout)
	// 500 ms, doubled up to 8 s.
	want := []time.Duration{500, 1500, 3500, 7500, 15500, 23500, 31500, 39500, 47500, 55500}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(at, want) || p.now.Sub(start) != time.Minute {
		t.Fatalf("retransmissions at %v, closed at %v", at, p.now.Sub(start))
	}
	if !p.i.NextTimeout().IsZero() {
		t.Fatal("a closed initiator has a timer")
	}
}

func TestInitialContact(t *testing.T) {
	p := newPair(t)
	p.establish()
	old := p.session()
	// The client starts anew with other SPIs, and forgets the first session.
	p.ic.NewSPI = spiCounter(0x3000)
	p.eventsI = nil
	p.connect()
	p.run()
	if p.session() == old {
		t.Fatal("the old session is still there")
	}
	var closed error
	for _, e := range p.eventsR {
		if c, ok := e.Event.(Closed); ok && e.Session == old {
			closed = c.Err
		}
	}
	wantError(t, "old session", closed, ErrReplaced)
	p.wantOneChild()
}
