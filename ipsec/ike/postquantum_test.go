package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// wantGroups checks what the keys of both ends' IKE SA came from.
func (p *pair) wantGroups(want string) {
	p.t.Helper()
	for name, s := range p.ends() {
		if got := s.KeyExchanges().String(); got != want {
			p.t.Fatalf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestPostQuantumConnect(t *testing.T) {
	p := newPair(t, hybrid)
	p.establish()
	// HDR, SAi1, KEi, Ni, N(INTERMEDIATE_EXCHANGE_SUPPORTED) -->
	// <-- HDR, SAr1, KEr, Nr, N(INTERMEDIATE_EXCHANGE_SUPPORTED)
	// HDR, SK {KEi(1)} -->
	// <-- HDR, SK {KEr(1)}
	// HDR, SK {IDi, ..., AUTH, ...} -->
	// <-- HDR, SK {IDr, ..., AUTH, ...}
	want := []string{
		"I IKE_SA_INIT request 0", "R IKE_SA_INIT response 0",
		"I IKE_INTERMEDIATE request 1", "I IKE_INTERMEDIATE request 1", "I IKE_INTERMEDIATE request 1",
		"R IKE_INTERMEDIATE response 1", "R IKE_INTERMEDIATE response 1", "R IKE_INTERMEDIATE response 1",
		"I IKE_AUTH request 2", "R IKE_AUTH response 2",
	}
	if !slices.Equal(p.sends, want) {
		t.Fatalf("sent %q", p.sends)
	}
	for i, m := range p.raw[2:8] {
		// IPv4 and UDP, the non-ESP marker, and what passes everywhere.
		if len(m)+20+8+4 > 576 {
			t.Fatalf("message %d has %d bytes", i+2, len(m))
		}
	}
	p.wantGroups("X25519+ML-KEM-768")
	if !p.i.KeyExchanges().PostQuantum() {
		t.Fatal("not post-quantum")
	}
	p.wantOneChild()
	p.wantIdle()
}

// A peer that does not know of it costs nothing, and one that must have it gets
// nobody else.
func TestPostQuantumFallback(t *testing.T) {
	for _, tt := range []struct {
		i, r  PostQuantum
		sends int
		want  string // empty: no IKE SA
	}{
		{PreferPostQuantum, NeverPostQuantum, 4, "X25519"},
		{NeverPostQuantum, PreferPostQuantum, 4, "X25519"},
		{RequirePostQuantum, PreferPostQuantum, 10, "X25519+ML-KEM-768"},
		{PreferPostQuantum, RequirePostQuantum, 10, "X25519+ML-KEM-768"},
		{RequirePostQuantum, NeverPostQuantum, 0, ""},
		{NeverPostQuantum, RequirePostQuantum, 0, ""},
	} {
		t.Run(fmt.Sprint(tt.i, tt.r), func(t *testing.T) {
			p := newPair(t, func(p *pair) { p.ic.PostQuantum, p.rc.PostQuantum = tt.i, tt.r })
			if tt.want == "" {
				p.pass(time.Minute)
				var n *NotifyError
				if err := p.closedI(); !errors.As(err, &n) || n.Type != message.NoProposalChosen {
					t.Fatalf("closed: %v", err)
				}
				return
			}
			p.establish()
			if len(p.sends) != tt.sends {
				t.Fatalf("sent %q", p.sends)
			}
			p.wantGroups(tt.want)
			p.i.RekeyIKE(p.now)
			p.run()
			p.i.RekeyChild(p.now)
			p.run()
			p.session().RekeyChild(p.now)
			p.run()
			p.wantGroups(tt.want)
			p.wantOneChild()
			p.wantIdle()
		})
	}
}

// P-256 first, by INVALID_KE_PAYLOAD, and shared keys.
func TestPostQuantumWithOtherGroup(t *testing.T) {
	p := newPair(t, hybrid, func(p *pair) {
		p.rc.IKEProposals = PreferPostQuantum.ikeProposals()
		p.rc.IKEProposals[0].Groups = []Group{P256}
		p.rc.IKEProposals[1].Groups = []Group{P256}
		p.ic.IKEProposals = PreferPostQuantum.ikeProposals()
		p.ic.IKEProposals[0].Groups = []Group{X25519, P256}
	})
	p.establish()
	p.wantGroups("P-256+ML-KEM-768")
}

// Every message may get lost or come twice.
func TestPostQuantumConnectUnderLoss(t *testing.T) {
	for n := range 10 {
		p := newPair(t, hybrid, func(p *pair) {
			p.lose = func(Role, message.Header) bool { return len(p.sends) == n+1 }
			p.paths = []Path{"udp", "tcp"}
		})
		p.pass(10 * time.Second)
		p.establish()
		p.wantGroups("X25519+ML-KEM-768")
		p.wantOneChild()
		p.wantIdle()
	}
}

// AUTH covers both messages of IKE_INTERMEDIATE: an end that saw others does
// not authenticate.
func TestAuthCoversIntermediate(t *testing.T) {
	for _, end := range []string{"initiator's", "responder's"} {
		p := newPair(t, hybrid)
		for len(find[Established](p.eventsI)) == 0 && len(find[Closed](p.eventsI)) == 0 {
			if f := p.i.first; f != nil && f.authR != nil {
				break
			}
			if len(p.toR) > 0 {
				p.toResponder()
			} else {
				p.toInitiator()
			}
		}
		// IKE_AUTH is on its way; the responder remembers something else.
		for _, s := range p.r.bySPI {
			if end == "initiator's" {
				s.first.authI[0] ^= 1
			} else {
				s.first.authR[0] ^= 1
			}
		}
		p.run()
		var n *NotifyError
		if err := p.closedI(); !errors.As(err, &n) || n.Type != message.AuthenticationFailed {
			t.Fatalf("%s: closed with %v", end, err)
		}
	}
}

// What AUTH covers, by hand (RFC 9242, Section 3.3.2).
func TestIntAuth(t *testing.T) {
	sa := &ikeSA{prf: PRFHMACSHA256, spiI: 0x0102030405060708, spiR: 0x1112131415161718, initiator: true}
	sa.keys.pi, sa.keys.pr = []byte("pi"), []byte("pr")
	ke := []message.Payload{&message.KE{Group: 36, Data: []byte("abc")}}
	plain := "0000000b" + "00240000" + "616263"
	request := unhex(t, "0102030405060708"+"1112131415161718"+"2e202b08"+"00000001"+"0000002b"+"2200000f"+plain)
	response := unhex(t, "0102030405060708"+"1112131415161718"+"2e202b20"+"00000001"+"0000002b"+"2200000f"+plain)

	f := new(firstExchange)
	if f.intAuth() != nil {
		t.Fatal("something without IKE_INTERMEDIATE")
	}
	f.coverOwn(sa, sa.header(message.IKEIntermediate, 1, false), ke)
	sa.initiator = false
	f.coverOwn(sa, sa.header(message.IKEIntermediate, 1, true), ke)
	i1, r1 := sa.prf.sum([]byte("pi"), request), sa.prf.sum([]byte("pr"), response)
	if !bytes.Equal(f.authI, i1) || !bytes.Equal(f.authR, r1) {
		t.Fatalf("%x, %x", f.authI, f.authR)
	}
	sa.keys.pi = []byte("pi2")
	sa.initiator = true
	f.coverOwn(sa, sa.header(message.IKEIntermediate, 2, false), ke)
	binary.BigEndian.PutUint32(request[20:], 2)
	i2 := sa.prf.sum([]byte("pi2"), i1, request)
	f.authID = 3
	if want := slices.Concat(i2, r1, []byte{0, 0, 0, 3}); !bytes.Equal(f.intAuth(), want) {
		t.Fatalf("%x, want %x", f.intAuth(), want)
	}
}

// An initiator that leaves out what was agreed is not let in.
func TestIntermediateLeftOut(t *testing.T) {
	p := newPair(t, hybrid)
	p.toResponder()
	p.toInitiator()
	p.toR = nil
	sa := p.i.sa
	sa.request, sa.nextSend = nil, 1
	p.i.first.left, p.i.first.authI = nil, nil
	p.i.authenticate(p.now, sa)
	p.run()
	if len(p.r.Sessions()) != 0 {
		t.Fatal("the responder let it in")
	}
	var n *NotifyError
	if err := p.closedI(); !errors.As(err, &n) || n.Type != message.InvalidSyntax {
		t.Fatalf("closed with %v", err)
	}
}

func TestPostQuantumRekey(t *testing.T) {
	for who := range 2 {
		p := newPair(t, hybrid)
		p.establish()
		first := p.wantOneChild()
		s := []*Session{p.i, p.session()}[who]
		end := []string{"I", "R"}[who]
		n := len(p.sends)
		// HDR, SK {N(REKEY_SA), SA, Ni, KEi, TSi, TSr} -->
		// <-- HDR, SK {SA, Nr, KEr, TSi, TSr, N(ADDITIONAL_KEY_EXCHANGE)}
		// HDR, SK {KEi(1), N(ADDITIONAL_KEY_EXCHANGE)} -->
		// <-- HDR, SK {KEr(1)}
		// HDR, SK {D} -->
		// <-- HDR, SK {D}
		s.RekeyChild(p.now)
		p.run()
		second := p.wantOneChild()
		if second.Replaces != first.InboundSPI {
			t.Fatalf("first %v, second %v", first, second)
		}
		count := 0
		for _, m := range p.sends[n:] {
			if m[:len(end)+len(" IKE_FOLLOWUP_KE")] == end+" IKE_FOLLOWUP_KE" {
				count++
			}
		}
		if count != 3 {
			t.Fatalf("sent %q", p.sends[n:])
		}
		p.wantIdle()
		spi, _ := p.i.SPIs()
		s.RekeyIKE(p.now)
		p.run()
		if now, _ := p.i.SPIs(); now == spi {
			t.Fatal("not rekeyed")
		}
		p.wantGroups("X25519+ML-KEM-768")
		p.wantOneChild()
		p.wantIdle()
		if len(p.i.sa.awaited)+len(p.session().sa.awaited) > 0 {
			t.Fatal("something is awaited")
		}
		p.pass(24 * time.Hour)
		p.wantOneChild()
		p.wantIdle()
	}
}

// A peer that forgot what it agreed on says so, and the rekeying starts anew.
func TestFollowupStateNotFound(t *testing.T) {
	for _, what := range []string{"child", "IKE SA"} {
		p := newPair(t, hybrid)
		p.establish()
		child := p.wantOneChild().InboundSPI
		spi, _ := p.i.SPIs()
		if what == "child" {
			p.i.RekeyChild(p.now)
		} else {
			p.i.RekeyIKE(p.now)
		}
		p.collect()
		p.toResponder()
		s := p.session()
		if len(s.sa.awaited) != 1 {
			t.Fatalf("%d awaited", len(s.sa.awaited))
		}
		s.sa.awaited = nil
		p.pass(time.Minute)
		c := p.wantOneChild()
		if i, _ := p.i.SPIs(); (i == spi) == (what == "IKE SA") || (c.InboundSPI == child) == (what == "child") {
			t.Fatal("not rekeyed in the end")
		}
		p.wantIdle()
	}
}

// What a peer begins and does not finish is bounded, and gets out of our way.
func TestFollowupNeverComes(t *testing.T) {
	p := newPair(t, hybrid)
	p.establish()
	s := p.session()
	for range 10 {
		p.i.RekeyChild(p.now)
		p.collect()
		p.toResponder()
		p.toI, p.toR = nil, nil
		p.i.sa.request = nil
		p.i.children[0].rekeying = false
	}
	if n := len(s.sa.awaited); n != 1 {
		t.Fatalf("%d awaited", n)
	}
	child := p.wantOneChild().InboundSPI
	s.RekeyChild(p.now)
	p.run()
	if p.wantOneChild().InboundSPI != child {
		t.Fatal("rekeyed while the peer was about to")
	}
	p.pass(5 * time.Minute)
	if p.wantOneChild().InboundSPI == child {
		t.Fatal("not rekeyed")
	}
	p.wantIdle()
}
