package ike

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func seeded(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func fqdn(s string) Identity { return Identity{Type: IDFQDN, Data: []byte(s)} }

// spiCounter hands out ESP SPIs that tell the ends apart.
func spiCounter(first uint32) func() uint32 {
	return func() uint32 { first++; return first }
}

var source = netip.MustParseAddrPort("192.0.2.1:4500")

// A packet is a message on its way.
type packet struct {
	msg  []byte
	path Path
}

// A pair is an initiator and a responder with a queue in each direction and a
// clock that only the test moves.
type pair struct {
	t   testing.TB
	now time.Time
	ic  InitiatorConfig
	rc  ResponderConfig
	i   *Session
	r   *Responder

	toR, toI []packet
	paths    []Path // the initiator sends a copy over each before Established

	// lose drops a message before it is queued.
	lose func(from Role, h message.Header) bool

	eventsI []Event
	eventsR []SessionEvent
	sends   []string // what was sent, in order
	raw     [][]byte // the same, as bytes
}

// newPair is two ends with raw public keys that trust each other.
func newPair(t testing.TB, change ...func(*pair)) *pair {
	kI, kR := testKey(1), testKey(2)
	p := &pair{t: t, now: time.Unix(1_700_000_000, 0), paths: []Path{"udp"}}
	p.ic = InitiatorConfig{
		Config: Config{
			Random: seeded(3), Local: fqdn("client"), PrivateKey: kI, NewSPI: spiCounter(0x1000),
			VendorIDs: [][]byte{[]byte("client vendor")},
		},
		PeerKey: public(kR),
		Request: Configuration{{Type: InternalIP4Address}, {Type: InternalIP4DNS}, {Type: InternalHomeAgent4}},
	}
	p.rc = ResponderConfig{
		Config: Config{
			Random: seeded(4), Local: fqdn("server"), PrivateKey: kR, NewSPI: spiCounter(0x2000),
			VendorIDs: [][]byte{[]byte("server vendor")},
		},
		TokenSecret: bytes.Repeat([]byte{7}, 32),
		Lookup: func(id Identity, key ed25519.PublicKey) (*Peer, error) {
			if id.equal(fqdn("client")) {
				return &Peer{Name: "client", PublicKey: public(kI)}, nil
			}
			return nil, errors.New("nobody")
		},
		Assign: func(p *Peer, request Configuration) (Configuration, error) {
			return Configuration{
				AddressAttribute(InternalIP4Address, netip.MustParseAddr("10.7.0.2")),
				AddressAttribute(InternalHomeAgent4, netip.MustParseAddr("10.7.0.1")),
			}, nil
		},
	}
	// Most tests are about what is the same without additional key exchanges.
	p.ic.PostQuantum, p.rc.PostQuantum = NeverPostQuantum, NeverPostQuantum
	for _, c := range change {
		c(p)
	}
	var err error
	if p.r, err = NewResponder(p.rc); err != nil {
		t.Fatal(err)
	}
	p.connect()
	return p
}

// hybrid is a change for newPair: both ends are as without a choice.
func hybrid(p *pair) { p.ic.PostQuantum, p.rc.PostQuantum = PreferPostQuantum, PreferPostQuantum }

// connect makes a new initiator.
func (p *pair) connect() {
	var err error
	if p.i, err = NewInitiator(p.ic, p.now); err != nil {
		p.t.Fatal(err)
	}
	p.collect()
}

// collect takes both ends' events and queues what they send.
func (p *pair) collect() {
	for _, e := range p.i.Events() {
		if s, ok := e.(Send); ok {
			p.note(RoleInitiator, s)
			if p.lost(RoleInitiator, s.Message) {
				continue
			}
			for _, path := range p.paths {
				if s.Path == nil || s.Path == path {
					p.toR = append(p.toR, packet{s.Message, path})
				}
			}
			continue
		}
		p.eventsI = append(p.eventsI, e)
	}
	for _, e := range p.r.Events() {
		if s, ok := e.Event.(Send); ok {
			p.note(RoleResponder, s)
			if !p.lost(RoleResponder, s.Message) {
				p.toI = append(p.toI, packet{s.Message, s.Path})
			}
			continue
		}
		p.eventsR = append(p.eventsR, e)
	}
}

func (p *pair) note(from Role, s Send) {
	h, err := message.ParseHeader(s.Message)
	if err != nil {
		p.t.Fatalf("sent nonsense: %v", err)
	}
	end, kind := "I", "request"
	if from == RoleResponder {
		end = "R"
	}
	if h.Response() {
		kind = "response"
	}
	p.sends = append(p.sends, fmt.Sprintf("%s %v %s %d", end, h.Exchange, kind, h.ID))
	p.raw = append(p.raw, s.Message)
}

func (p *pair) lost(from Role, msg []byte) bool {
	h, _ := message.ParseHeader(msg)
	return p.lose != nil && p.lose(from, h)
}

// toResponder and toInitiator deliver one packet; the receiver must not keep
// the bytes.
func (p *pair) toResponder() {
	k := p.toR[0]
	p.toR = p.toR[1:]
	b := bytes.Clone(k.msg)
	p.r.Receive(p.now, b, k.path, source)
	clear(b)
	p.collect()
}

func (p *pair) toInitiator() {
	k := p.toI[0]
	p.toI = p.toI[1:]
	b := bytes.Clone(k.msg)
	p.i.Receive(p.now, b, k.path)
	clear(b)
	p.collect()
}

// run delivers until nothing is under way.
func (p *pair) run() {
	p.collect()
	for n := 0; len(p.toR)+len(p.toI) > 0; n++ {
		if n > 1000 {
			p.t.Fatal("the two never stop talking")
		}
		if len(p.toR) > 0 {
			p.toResponder()
		}
		if len(p.toI) > 0 {
			p.toInitiator()
		}
	}
}

// next moves the clock to the next timeout of either end.
func (p *pair) next() bool {
	t := earlier(p.i.NextTimeout(), p.r.NextTimeout())
	if t.IsZero() {
		return false
	}
	if t.After(p.now) {
		p.now = t
	}
	p.i.Advance(p.now)
	p.r.Advance(p.now)
	p.collect()
	return true
}

// pass lets time go by, with all that becomes due and all messages delivered
// at once.
func (p *pair) pass(d time.Duration) {
	end := p.now.Add(d)
	p.run()
	for n := 0; ; n++ {
		t := earlier(p.i.NextTimeout(), p.r.NextTimeout())
		if t.IsZero() || t.After(end) {
			break
		}
		if n > 10000 {
			p.t.Fatal("timers without end")
		}
		p.next()
		p.run()
	}
	p.now = end
}

// session is the responder's one session.
func (p *pair) session() *Session {
	p.t.Helper()
	all := p.r.Sessions()
	if len(all) != 1 {
		p.t.Fatalf("%d sessions at the responder, want 1", len(all))
	}
	return all[0]
}

// establish runs the first two exchanges.
func (p *pair) establish() {
	p.t.Helper()
	p.run()
	if p.i.state != stateEstablished {
		p.t.Fatalf("initiator is %v; events %v, %v", p.i.state, p.eventsI, p.eventsR)
	}
	p.wantAgreement()
}

func find[E Event](es []Event) (all []E) {
	for _, e := range es {
		if x, ok := e.(E); ok {
			all = append(all, x)
		}
	}
	return all
}

func (p *pair) responderEvents() []Event {
	var es []Event
	for _, e := range p.eventsR {
		es = append(es, e.Event)
	}
	return es
}

// living follows events to the children that an owner has installed.
func living(es []Event) map[uint32]Child {
	m := map[uint32]Child{}
	for _, e := range es {
		switch e := e.(type) {
		case ChildCreated:
			m[e.Child.InboundSPI] = e.Child
		case ChildDeleted:
			delete(m, e.InboundSPI)
		}
	}
	return m
}

// wantAgreement checks that both owners have the same children, with matching
// keys, and that both ends use the same IKE SA.
func (p *pair) wantAgreement() {
	p.t.Helper()
	a, b := living(p.eventsI), living(p.responderEvents())
	if len(a) != len(b) || len(a) == 0 {
		p.t.Fatalf("initiator has %d children, responder %d", len(a), len(b))
	}
	for _, x := range a {
		y, ok := b[x.OutboundSPI]
		if !ok || y.OutboundSPI != x.InboundSPI {
			p.t.Fatalf("child %x is not at the responder", x.InboundSPI)
		}
		if !bytes.Equal(x.InboundKey, y.OutboundKey) || !bytes.Equal(x.OutboundKey, y.InboundKey) ||
			len(x.InboundKey) != x.Algorithm.KeyLen() || bytes.Equal(x.InboundKey, x.OutboundKey) {
			p.t.Fatalf("keys of child %x differ", x.InboundSPI)
		}
		if x.Algorithm != y.Algorithm || x.ESN != y.ESN || x.Role == y.Role ||
			!slices.Equal(x.TSLocal, y.TSRemote) || !slices.Equal(x.TSRemote, y.TSLocal) {
			p.t.Fatalf("children differ: %v %v", x, y)
		}
	}
	i1, r1 := p.i.SPIs()
	i2, r2 := p.session().SPIs()
	if i1 != i2 || r1 != r2 {
		p.t.Fatalf("IKE SAs differ: %x %x, %x %x", i1, r1, i2, r2)
	}
	if a, b := p.i.sa, p.session().sa; a.initiator == b.initiator || !bytes.Equal(a.keys.d, b.keys.d) {
		p.t.Fatal("IKE keys differ")
	}
}

// wantOneChild checks that exactly one child is left at both ends.
func (p *pair) wantOneChild() Child {
	p.t.Helper()
	p.wantAgreement()
	m := living(p.eventsI)
	if len(m) != 1 || len(p.i.children) != 1 || len(p.session().children) != 1 {
		p.t.Fatalf("%d children for the owner, %d and %d inside, want 1", len(m), len(p.i.children), len(p.session().children))
	}
	for _, c := range m {
		return c
	}
	return Child{}
}

// wantIdle checks that nothing is under way or waiting.
func (p *pair) wantIdle() {
	p.t.Helper()
	for _, s := range []*Session{p.i, p.session()} {
		if len(s.queue) > 0 {
			p.t.Fatalf("tasks left: %v", s.queue)
		}
		for _, sa := range s.sas {
			if sa.request != nil {
				p.t.Fatalf("request %d under way", sa.request.kind)
			}
			if sa != s.sa && sa.state != saGone {
				p.t.Fatalf("an IKE SA is %v", sa.state)
			}
		}
	}
}

// closedI gives the initiator's Closed.
func (p *pair) closedI() error {
	p.t.Helper()
	c := find[Closed](p.eventsI)
	if len(c) != 1 {
		p.t.Fatalf("initiator has %d Closed, want 1", len(c))
	}
	return c[0].Err
}

func (p *pair) closedR() error {
	p.t.Helper()
	c := find[Closed](p.responderEvents())
	if len(c) != 1 {
		p.t.Fatalf("responder has %d Closed, want 1", len(c))
	}
	return c[0].Err
}
