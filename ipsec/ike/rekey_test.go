package ike

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/esp"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// ends gives both sessions with a name.
func (p *pair) ends() map[string]*Session {
	return map[string]*Session{"initiator": p.i, "responder": p.session()}
}

func TestRekeyChild(t *testing.T) {
	noPFS := []Proposal{{Ciphers: []esp.Algorithm{esp.AES256GCM}}}
	for _, tt := range []struct {
		name   string
		change func(*pair)
		sends  int
	}{
		{"with a key exchange", func(*pair) {}, 4},
		{"without one", func(p *pair) { p.ic.ESPProposals, p.rc.ESPProposals = noPFS, noPFS }, 4},
		{"offered, and the peer does not want it", func(p *pair) { p.rc.ESPProposals = NeverPostQuantum.espProposals()[1:] }, 4},
		{"not offered, and the peer would want it", func(p *pair) { p.ic.ESPProposals = NeverPostQuantum.espProposals()[1:] }, 4},
		{"in another group", func(p *pair) {
			p.rc.ESPProposals = []Proposal{{Ciphers: allCiphers, Groups: []Group{P256}}}
			p.ic.ESPProposals = []Proposal{{Ciphers: allCiphers, Groups: []Group{X25519, P256}}}
		}, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, tt.change)
			p.establish()
			first := p.wantOneChild()
			n := len(p.sends)
			// HDR, SK {N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr} -->
			// <-- HDR, SK {SA, Nr, [KEr,] TSi, TSr}
			// HDR, SK {D} -->
			// <-- HDR, SK {D}
			p.i.RekeyChild(p.now)
			p.run()
			second := p.wantOneChild()
			if second.InboundSPI == first.InboundSPI || second.Replaces != first.InboundSPI || second.Role != RoleInitiator {
				t.Fatalf("first %v, second %v", first, second)
			}
			if bytes.Equal(second.InboundKey, first.InboundKey) {
				t.Fatal("the same keys again")
			}
			if len(p.sends)-n != tt.sends {
				t.Fatalf("sent %q", p.sends[n:])
			}
			p.wantIdle()
		})
	}
}

// The other end of the session rekeys; roles are of the exchange.
func TestResponderRekeysChild(t *testing.T) {
	p := newPair(t)
	p.establish()
	first := p.wantOneChild()
	p.session().RekeyChild(p.now)
	p.run()
	c := p.wantOneChild()
	if c.Role != RoleResponder || c.Replaces != first.InboundSPI || len(c.TSLocal) != 1 || len(c.TSRemote) != 2 {
		t.Fatalf("child %v", c)
	}
	p.wantIdle()
}

func TestRekeyIKE(t *testing.T) {
	for who := range 2 {
		p := newPair(t)
		p.establish()
		child := p.wantOneChild()
		i, r := p.i.SPIs()
		s := p.session()
		// HDR, SK {SA, Ni, KEi} -->
		// <-- HDR, SK {SA, Nr, KEr}
		// HDR(old), SK {D} -->
		// <-- HDR(old), SK {}
		[]*Session{p.i, s}[who].RekeyIKE(p.now)
		p.run()
		i2, r2 := p.i.SPIs()
		if i == i2 || r == r2 || p.session() != s || p.i.Role() != RoleInitiator {
			t.Fatal("the SPIs are the same, or the session is another")
		}
		if c := p.wantOneChild(); c.InboundSPI != child.InboundSPI {
			t.Fatal("the child changed")
		}
		p.wantIdle()
		// Both ends can ask on the new SA, and message IDs start at 0.
		n := len(p.sends)
		p.i.RekeyChild(p.now)
		p.run()
		s.RekeyChild(p.now)
		p.run()
		p.wantOneChild()
		if p.sends[n] != "I CREATE_CHILD_SA request 0" {
			t.Fatalf("sent %q", p.sends[n:])
		}
		// The old SA is forgotten at last, all but its name.
		p.pass(time.Minute)
		if len(p.i.sas) != 1 || len(s.sas) != 1 || len(p.r.bySPI) != 2 {
			t.Fatalf("%d, %d, %d IKE SAs", len(p.i.sas), len(s.sas), len(p.r.bySPI))
		}
	}
}

func TestRekeyIKEInvalidKE(t *testing.T) {
	p := newPair(t)
	p.establish()
	p.session().c.IKEProposals = NeverPostQuantum.ikeProposals()
	p.session().c.IKEProposals[0].Groups = []Group{P256}
	i, _ := p.i.SPIs()
	p.i.RekeyIKE(p.now)
	p.run()
	if i2, _ := p.i.SPIs(); i == i2 {
		t.Fatal("not rekeyed")
	}
	p.wantAgreement()
	p.wantIdle()
}

// Timers alone keep a session going, and never lose the child.
func TestLifetimes(t *testing.T) {
	p := newPair(t)
	p.establish()
	p.pass(24 * time.Hour)
	p.wantOneChild()
	p.wantIdle()
	if len(find[Closed](p.eventsI)) > 0 {
		t.Fatal("closed")
	}
	// 54 to 60 minutes each for the initiator's timers, which come first.
	if n := len(find[ChildCreated](p.eventsI)); n < 24 || n > 28 {
		t.Fatalf("%d children in a day", n)
	}
	for _, c := range find[ChildCreated](p.eventsI) {
		if c.Child.Role != RoleInitiator {
			t.Fatal("the responder was faster")
		}
	}
	// Negative is never.
	p = newPair(t, func(p *pair) {
		p.ic.ChildLifetime, p.ic.IKELifetime, p.rc.ChildLifetime, p.rc.IKELifetime = -1, -1, -1, -1
	})
	p.establish()
	p.pass(24 * time.Hour)
	if n := len(p.sends); n != 4 {
		t.Fatalf("sent %q", p.sends)
	}
}

// kinds is what rekeying is tested with: one key exchange, and two of them.
var kinds = map[string]func(*pair){"classical": func(*pair) {}, "hybrid": hybrid}

func TestRekeyUnderLoss(t *testing.T) {
	for kind, change := range kinds {
		t.Run(kind, func(t *testing.T) { rekeyUnderLoss(t, change) })
	}
}

func rekeyUnderLoss(t *testing.T, change func(*pair)) {
	for _, what := range []string{"child", "IKE SA"} {
		for n := range 10 {
			for _, who := range []string{"initiator", "responder"} {
				t.Run(fmt.Sprintf("%s rekeys its %s, message %d lost", who, what, n), func(t *testing.T) {
					p := newPair(t, change)
					p.establish()
					first := len(p.sends)
					p.lose = func(Role, message.Header) bool { return len(p.sends)-first-1 == n }
					s := p.ends()[who]
					spi, _ := p.i.SPIs()
					child := p.wantOneChild().InboundSPI
					if what == "child" {
						s.RekeyChild(p.now)
					} else {
						s.RekeyIKE(p.now)
					}
					p.pass(20 * time.Second)
					p.wantIdle()
					c := p.wantOneChild()
					if i, _ := p.i.SPIs(); (i == spi) == (what == "IKE SA") || (c.InboundSPI == child) == (what == "child") {
						t.Fatal("not rekeyed")
					}
				})
			}
		}
	}
}

// Both ends rekey the child at once (RFC 7296, Section 2.8.1):
//
//	req1: HDR, SK {N(REKEY_SA), SA, Ni1, TSi, TSr} -->
//	                         <-- req2: HDR, SK {N(REKEY_SA), SA, Ni2, ...}
//	resp2: HDR, SK {SA, Nr1, ...} -->
//	                                       <-- resp1: HDR, SK {SA, Nr2, ...}
//
// The exchange with the lowest nonce loses.
func TestChildRekeyCollision(t *testing.T) {
	for kind, change := range kinds {
		t.Run(kind, func(t *testing.T) { childRekeyCollision(t, change) })
	}
}

func childRekeyCollision(t *testing.T, change func(*pair)) {
	winners := map[Role]int{}
	for seed := range byte(12) {
		p := newPair(t, change, func(p *pair) { p.ic.Random, p.rc.Random = seeded(seed), seeded(seed+100) })
		p.establish()
		first := p.wantOneChild()
		p.i.RekeyChild(p.now)
		p.session().RekeyChild(p.now)
		p.run()
		c := p.wantOneChild()
		if c.Replaces != first.InboundSPI {
			t.Fatalf("replaces %x, want %x", c.Replaces, first.InboundSPI)
		}
		winners[c.Role]++
		p.wantIdle()
		// The one that is left can be rekeyed by either end.
		p.i.RekeyChild(p.now)
		p.run()
		p.session().RekeyChild(p.now)
		p.run()
		p.wantOneChild()
	}
	if winners[RoleInitiator] == 0 || winners[RoleResponder] == 0 {
		t.Fatalf("the same end wins always: %v", winners)
	}
}

// An owner must never be told to send on the loser's child.
func TestChildRekeyCollisionEvents(t *testing.T) {
	for seed := range byte(16) {
		change := kinds[[]string{"classical", "hybrid"}[seed%2]]
		p := newPair(t, change, func(p *pair) { p.ic.Random, p.rc.Random = seeded(seed), seeded(seed+100) })
		p.establish()
		p.i.RekeyChild(p.now)
		p.session().RekeyChild(p.now)
		p.run()
		leads := 0
		for _, es := range [][]Event{p.eventsI, p.responderEvents()} {
			for _, c := range find[ChildCreated](es)[1:] {
				if c.Child.Role == RoleInitiator {
					leads++
				}
			}
		}
		if leads != 1 {
			t.Fatalf("%d ends lead", leads)
		}
	}
}

func TestIKERekeyCollision(t *testing.T) {
	for kind, change := range kinds {
		t.Run(kind, func(t *testing.T) { ikeRekeyCollision(t, change) })
	}
}

func ikeRekeyCollision(t *testing.T, change func(*pair)) {
	winners := map[bool]int{}
	for seed := range byte(12) {
		p := newPair(t, change, func(p *pair) { p.ic.Random, p.rc.Random = seeded(seed), seeded(seed+100) })
		p.establish()
		i, _ := p.i.SPIs()
		p.i.RekeyIKE(p.now)
		p.session().RekeyIKE(p.now)
		p.run()
		p.wantOneChild()
		p.wantIdle()
		if i2, _ := p.i.SPIs(); i == i2 {
			t.Fatal("not rekeyed")
		}
		winners[p.i.sa.initiator]++
		p.i.RekeyChild(p.now)
		p.session().Liveness(p.now)
		p.run()
		p.wantOneChild()
		p.pass(2 * time.Minute)
		if len(p.i.sas) != 1 || len(p.session().sas) != 1 {
			t.Fatalf("%d and %d IKE SAs", len(p.i.sas), len(p.session().sas))
		}
	}
	if winners[true] == 0 || winners[false] == 0 {
		t.Fatalf("the same end wins always: %v", winners)
	}
}

// Whatever is lost of a collision, both ends come out with one child or one IKE
// SA (RFC 7296, Section 2.25).
func TestCollisionsUnderLoss(t *testing.T) {
	t.Run("classical", func(t *testing.T) { collisionsUnderLoss(t, 6, kinds["classical"]) })
	t.Run("hybrid", func(t *testing.T) { collisionsUnderLoss(t, 2, hybrid) })
}

func collisionsUnderLoss(t *testing.T, seeds byte, change func(*pair)) {
	for seed := range seeds {
		for mask := range 64 {
			p := newPair(t, change, func(p *pair) { p.ic.Random, p.rc.Random = seeded(seed), seeded(seed+100) })
			p.establish()
			first := len(p.sends)
			p.lose = func(Role, message.Header) bool {
				n := len(p.sends) - first - 1
				return n < 6 && mask>>n&1 == 1
			}
			if seed%2 == 0 {
				p.i.RekeyChild(p.now)
				p.session().RekeyChild(p.now)
			} else {
				p.i.RekeyIKE(p.now)
				p.session().RekeyIKE(p.now)
			}
			p.pass(4 * time.Minute)
			if len(find[Closed](p.eventsI))+len(find[Closed](p.responderEvents())) > 0 {
				t.Fatalf("seed %d, lost %06b: closed; %q", seed, mask, p.sends[first:])
			}
			p.wantOneChild()
			p.wantIdle()
		}
	}
}

// The IKE SA is rekeyed while the other end rekeys the child: TEMPORARY_FAILURE
// for both, and both try again later.
func TestIKEAndChildRekeyCollide(t *testing.T) {
	p := newPair(t)
	p.establish()
	spi, _ := p.i.SPIs()
	child := p.wantOneChild().InboundSPI
	p.i.RekeyIKE(p.now)
	p.session().RekeyChild(p.now)
	p.run()
	p.wantOneChild()
	p.pass(time.Minute)
	p.wantIdle()
	c := p.wantOneChild()
	if i, _ := p.i.SPIs(); i == spi || c.InboundSPI == child {
		t.Fatal("not rekeyed after the collision")
	}
}

// A peer that lost the child says so; a new one takes its place.
func TestChildSANotFound(t *testing.T) {
	p := newPair(t)
	p.establish()
	first := p.wantOneChild()
	s := p.session()
	s.removeChild(s.children[0])
	p.i.RekeyChild(p.now)
	p.run()
	c := p.wantOneChild()
	if c.Replaces != first.InboundSPI {
		t.Fatalf("child %v", c)
	}
	p.wantIdle()
}

// stories is enough for a run; thousands were tried.
const stories = 200

// Random triggers on both ends, with loss, duplication and reordering: in the
// end the two agree.
func TestRandomStories(t *testing.T) {
	for kind, change := range kinds {
		n := uint64(stories)
		if kind == "hybrid" {
			n /= 3 // they take longer
		}
		for seed := range n {
			t.Run(fmt.Sprint(kind, seed), func(t *testing.T) { randomStory(t, seed, change) })
		}
	}
}

func randomStory(t *testing.T, seed uint64, change func(*pair)) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := newPair(t, change, func(p *pair) { p.ic.Random, p.rc.Random = seeded(byte(seed)), seeded(byte(seed)+50) })
	p.establish()
	p.lose = func(Role, message.Header) bool { return rnd.IntN(3) == 0 }
	for range 120 {
		switch s := []*Session{p.i, p.session()}[rnd.IntN(2)]; rnd.IntN(8) {
		case 0:
			s.RekeyChild(p.now)
		case 1:
			s.RekeyIKE(p.now)
		case 2:
			s.Liveness(p.now)
		case 3:
			s.Retransmit(p.now)
		case 4:
			p.now = p.now.Add(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			p.i.Advance(p.now)
			p.r.Advance(p.now)
		}
		p.collect()
		for _, q := range []*[]packet{&p.toI, &p.toR} {
			rnd.Shuffle(len(*q), func(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] })
			if len(*q) > 0 && rnd.IntN(4) == 0 {
				*q = append(*q, (*q)[0])
			}
		}
		if len(p.toI) > 0 && rnd.IntN(2) == 0 {
			p.toInitiator()
		}
		if len(p.toR) > 0 && rnd.IntN(2) == 0 {
			p.toResponder()
		}
	}
	p.lose = nil
	p.pass(5 * time.Minute)
	if len(find[Closed](p.eventsI))+len(find[Closed](p.responderEvents())) > 0 {
		t.Fatalf("closed: %v %v", find[Closed](p.eventsI), find[Closed](p.responderEvents()))
	}
	p.wantOneChild()
	p.wantIdle()
}
