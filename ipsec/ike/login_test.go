package ike

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/eap"
	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// A loginKit is the responder's certificate for all tests, as making keys takes
// long.
type loginKit struct {
	key   crypto.Signer
	chain [][]byte
	root  *x509.Certificate
}

func newLoginKit(t testing.TB, key crypto.Signer) *loginKit {
	rootKey := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	root := issue(t, rootKey, nil, nil, late)
	return &loginKit{key, [][]byte{issue(t, key, root, rootKey, late, "vpn.example.org").Raw}, root}
}

// logins makes the initiator log in as name with password, at a responder that
// knows carol, clara and dave.
func (k *loginKit) logins(name, password string) func(*pair) {
	return func(p *pair) {
		remote := fqdn("vpn.example.org")
		p.ic.PeerKey, p.ic.PrivateKey, p.ic.Remote = nil, nil, &remote
		p.ic.Roots, p.ic.Login = []*x509.Certificate{k.root}, &Login{Name: name, Password: Secret(password)}
		p.rc.Certificates, p.rc.CertificateKey = k.chain, k.key
		p.rc.Logins = &Logins{Local: fqdn("vpn.example.org"), Lookup: func(name string) (*Peer, error) {
			if name != "carol" && name != "clara" && name != "dave" {
				return nil, errors.New("nobody has this name")
			}
			return &Peer{Name: name, NTHash: Secret(eap.NTHash(eap.Secret("pass of " + name)))}, nil
		}}
	}
}

func edKit(t testing.TB) *loginKit { return newLoginKit(t, testKey(9)) }

// RSA as Windows wants it, and each kind with a peer that knows RFC 7427 and with
// one that does not.
func TestLogin(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		key    crypto.Signer
		hashes []uint16 // that the responder believes the initiator to know
		method uint8
	}{
		{"Ed25519", testKey(9), []uint16{hashIdentity}, message.AuthDigitalSignature},
		{"P-256", ecdsaKey(t, elliptic.P256()), []uint16{hashSHA256}, message.AuthDigitalSignature},
		{"P-256, RFC 4754", ecdsaKey(t, elliptic.P256()), nil, message.AuthECDSA256},
		{"P-384, RFC 4754", ecdsaKey(t, elliptic.P384()), nil, message.AuthECDSA384},
		{"P-521, RFC 4754", ecdsaKey(t, elliptic.P521()), nil, message.AuthECDSA521},
		{"RSA", rsaKey, []uint16{hashSHA256, hashSHA384}, message.AuthDigitalSignature},
		{"RSA with SHA-512", rsaKey, []uint16{hashSHA512}, message.AuthDigitalSignature},
		{"RSA, RFC 7296", rsaKey, nil, message.AuthRSA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, newLoginKit(t, tt.key).logins(`HOME\carol`, "pass of carol"))
			p.toResponder()
			for _, s := range p.r.bySPI {
				s.first.hashes = tt.hashes
			}
			p.toInitiator()
			p.toResponder() // the first IKE_AUTH
			m, err := message.Parse(p.toI[0].msg)
			if err != nil {
				t.Fatal(err)
			}
			e, _ := message.Find[*message.Encrypted](m.Payloads)
			ps, err := e.Open(p.toI[0].msg, p.i.sa.in)
			if err != nil {
				t.Fatal(err)
			}
			a, ok := message.Find[*message.Auth](ps)
			if !ok || a.Method != tt.method {
				t.Fatalf("AUTH %+v, want method %d", a, tt.method)
			}
			if tt.method == message.AuthRSA {
				// Those from before RFC 7427 expect SHA-1.
				sum := sha1.Sum(p.i.signedOctets(p.i.sa, false, findID(ps, message.TypeIDr)))
				if err := rsa.VerifyPKCS1v15(&rsaKey.PublicKey, crypto.SHA1, sum[:], a.Data); err != nil {
					t.Error(err)
				}
			}
			p.establish()
			p.wantOneChild()
			if s := p.session(); s.Peer().Name != "carol" || !s.remote.equal(fqdn("carol")) || s.login != nil || p.i.login != nil {
				t.Errorf("the responder sees %v, %v", s.Peer(), s.remote)
			}
			if e := find[Established](p.eventsI); len(e) != 1 || !e[0].Remote.equal(fqdn("vpn.example.org")) || len(e[0].Configuration) != 2 {
				t.Errorf("events %v", e)
			}
			if p.r.halfOpen != 0 {
				t.Errorf("%d half open", p.r.halfOpen)
			}
		})
	}
}

// Who guesses cannot tell an unknown name from a wrong password, nor either from
// a user that may not try now.
func TestLoginRefused(t *testing.T) {
	kit := edKit(t)
	var shapes []string
	for _, tt := range []struct{ name, password string }{{"carol", "wrong"}, {"erwin", "wrong"}, {"clara", "pass of clara"}} {
		p := newPair(t, kit.logins(tt.name, tt.password))
		for range maxTries {
			p.r.guesses.allow(p.now, "clara", source.Addr())
		}
		p.run()
		if err := p.closedI(); !errors.Is(err, ErrLogin) {
			t.Errorf("%s: the initiator ends with %v", tt.name, err)
		}
		var r *RefusalError
		if err := p.closedR(); !errors.As(err, &r) || r.Type != message.AuthenticationFailed || !strings.Contains(err.Error(), tt.name) {
			t.Errorf("%s: the responder ends with %v", tt.name, err)
		}
		if len(find[Established](p.responderEvents())) > 0 || len(p.r.Sessions()) > 0 {
			t.Errorf("%s came in", tt.name)
		}
		shape := fmt.Sprint(p.sends)
		for _, b := range p.raw {
			shape += fmt.Sprint(len(b), " ")
		}
		shapes = append(shapes, shape)
		p.pass(loginLifetime + linger)
		if p.r.halfOpen != 0 || len(p.r.bySPI) != 0 {
			t.Errorf("%s: %d half open, %d kept", tt.name, p.r.halfOpen, len(p.r.bySPI))
		}
	}
	for _, s := range shapes[1:] {
		if s != shapes[0] {
			t.Errorf("the exchanges differ:\n%s\n%s", shapes[0], s)
		}
	}
}

// Nothing of the password leaves for a gateway that did not prove itself.
func TestLoginFalseGateway(t *testing.T) {
	kit, other := edKit(t), newLoginKit(t, testKey(11))
	k := testKey(12)
	other.chain[0] = issue(t, other.key, issue(t, k, nil, nil, late), k, late, "vpn.example.org").Raw
	for name, change := range map[string]func(*pair){
		"another authority":   func(p *pair) { p.rc.Certificates, p.rc.CertificateKey = other.chain, other.key },
		"another key":         func(p *pair) { p.rc.CertificateKey = testKey(13) },
		"another name":        func(p *pair) { p.rc.Logins.Local = fqdn("other.example.org") },
		"another name wanted": func(p *pair) { r := fqdn("other.example.org"); p.ic.Remote = &r },
		"the system's roots":  func(p *pair) { p.ic.Roots, p.ic.SystemRoots = nil, true },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, kit.logins("carol", "pass of carol"), change)
			p.run()
			if err := p.closedI(); !errors.Is(err, ErrAuthentication) {
				t.Errorf("it ends with %v", err)
			}
			if n := new(NotifyError); !errors.As(p.closedR(), &n) || n.Type != message.AuthenticationFailed {
				t.Errorf("the responder ends with %v", p.closedR())
			}
			if n := len(slices.DeleteFunc(p.sends, func(s string) bool { return s != "I IKE_AUTH request 2" })); n > 0 {
				t.Error("it went on to the password")
			}
		})
	}
}

// Both ends must have the same key from EAP.
func TestLoginKeysDiffer(t *testing.T) {
	for _, end := range []string{"initiator", "responder"} {
		p := newPair(t, edKit(t).logins("carol", "pass of carol"))
		for p.i.login == nil || p.i.login.msk == nil {
			p.toResponder()
			p.toInitiator()
		}
		if end == "initiator" {
			p.i.login.msk[0]++ // its proof has left, and it wants another of the responder
		} else {
			for _, s := range p.r.bySPI {
				s.login.msk[0]++
			}
		}
		p.run()
		if err := p.closedI(); end == "initiator" && !errors.Is(err, ErrAuthentication) || err == nil {
			t.Errorf("%s: the initiator ends with %v", end, err)
		}
		if len(find[ChildCreated](p.eventsI)) > 0 {
			t.Errorf("%s: a child", end)
		}
	}
}

// Without a certificate or a list of users the responder does not offer logins,
// and an initiator that logs in may not stop half way for long.
func TestLoginLimits(t *testing.T) {
	kit := edKit(t)
	p := newPair(t, kit.logins("carol", "pass of carol"), func(p *pair) { p.rc.Logins = nil })
	p.run()
	if n := new(NotifyError); !errors.As(p.closedI(), &n) || n.Type != message.AuthenticationFailed {
		t.Errorf("it ends with %v", p.closedI())
	}

	p = newPair(t, kit.logins("carol", "pass of carol"))
	for range 3 {
		p.toResponder()
		p.toInitiator()
	}
	if d := p.silence(); d != loginLifetime {
		t.Errorf("half open for %v", d)
	}
	// One that has been refused has no reason to stay.
	p = newPair(t, kit.logins("carol", "wrong"))
	for range 4 {
		p.toResponder()
		p.toInitiator()
	}
	if d := p.silence(); d != halfOpenLifetime {
		t.Errorf("half open for %v after it was refused", d)
	}
}

// Logins that nobody finishes take no room of others.
func TestLoginsAreBounded(t *testing.T) {
	kit := edKit(t)
	p := newPair(t, kit.logins("carol", "pass of carol"), func(p *pair) { p.rc.HalfOpenLimit, p.rc.CookieThreshold = 8*maxLoginsOfPlace, 1000 })
	begin := func(from netip.AddrPort) error {
		t.Helper()
		p.toR = nil
		p.connect()
		for range 2 {
			p.r.Receive(p.now, p.toR[0].msg, "udp", from)
			p.toR = nil
			p.collect()
			p.toInitiator()
		}
		if c := find[Closed](p.eventsI); len(c) > 0 {
			p.eventsI = nil
			return c[0].Err
		}
		return nil
	}
	other := netip.MustParseAddrPort("198.51.100.9:500")
	for i := range maxLoginsOfPlace {
		if err := begin(source); err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
	}
	if err := begin(source); err == nil {
		t.Error("no end of logins from one place")
	}
	for i := range maxLoginsOfPlace {
		if err := begin(other); err != nil {
			t.Fatalf("login %d from elsewhere: %v", i, err)
		}
	}
	last, next := p.i, p.toR
	if err := begin(netip.MustParseAddrPort("203.0.113.1:500")); err == nil {
		t.Error("logins take more than a quarter of the room")
	}
	// Who finishes makes room, and time does.
	p.i, p.toR = last, next
	p.run()
	if err := begin(other); err != nil {
		t.Errorf("no room after one has finished: %v", err)
	}
	p.toR = nil
	p.now = p.now.Add(loginLifetime + linger)
	p.r.Advance(p.now)
	if len(p.r.Sessions()) != 1 || len(p.r.logins) != 0 {
		t.Errorf("left: %v", p.r.logins)
	}
}

// silence ends what the initiator says, and tells how long the responder waits.
func (p *pair) silence() time.Duration {
	p.t.Helper()
	p.toR = nil
	start := p.now
	for p.r.halfOpen > 0 {
		if p.r.NextTimeout().IsZero() {
			p.t.Fatal("it stays half open")
		}
		p.now = p.r.NextTimeout()
		p.r.Advance(p.now)
	}
	return p.now.Sub(start)
}

// A long chain of certificates goes in fragments, at both ends.
func TestLoginFragments(t *testing.T) {
	kit := edKit(t)
	for range 6 {
		// Certificates of others do no harm.
		kit.chain = append(kit.chain, issue(t, testKey(20), nil, nil, late, strings.Repeat("x", 600)).Raw)
	}
	p := newPair(t, kit.logins("carol", "pass of carol"))
	p.establish()
	p.wantOneChild()
	longest, parts := 0, 0
	for _, b := range p.raw {
		longest = max(longest, len(b))
		if h, err := message.ParseHeader(b); err == nil && h.ID == 1 && h.Response() {
			parts++
		}
	}
	if longest > defaultFragmentSize || parts < 4 {
		t.Errorf("%d messages of up to %d bytes", parts, longest)
	}
}

// Loss changes nothing: each round is repeated, with IKE_INTERMEDIATE before them.
func TestLoginUnderLoss(t *testing.T) {
	kit := edKit(t)
	lost := map[string]bool{}
	p := newPair(t, kit.logins("carol", "pass of carol"), hybrid, func(p *pair) {
		p.lose = func(from Role, h message.Header) bool {
			k := fmt.Sprint(from, h.ID, h.Response())
			again := lost[k]
			lost[k] = true
			return !again // the first of each
		}
	})
	p.pass(30 * time.Second)
	p.wantOneChild()
	if n := len(p.i.KeyExchanges()); n != 2 {
		t.Errorf("%d key exchanges", n)
	}
}

// Logging in costs no try, however often it is done.
func TestLoginOften(t *testing.T) {
	p := newPair(t, edKit(t).logins("carol", "pass of carol"))
	p.establish()
	for range 3 * maxTries {
		p.connect()
		p.run()
		if p.i.state != stateEstablished {
			t.Fatalf("it is %v: %v", p.i.state, p.eventsI)
		}
	}
}

// INITIAL_CONTACT is about the user that logged in, whatever IDi says.
func TestLoginInitialContact(t *testing.T) {
	p := newPair(t, edKit(t).logins("carol", "pass of carol"))
	p.establish()
	first := p.i
	p.ic.Login = &Login{Name: "dave", Password: Secret("pass of dave")}
	p.connect()
	p.run()
	if n := len(p.r.Sessions()); n != 2 {
		t.Fatalf("%d sessions of two users with the same IDi", n)
	}
	p.ic.Login, p.ic.Local = &Login{Name: "CAROL", Password: Secret("pass of carol")}, fqdn("elsewhere")
	lookup := p.r.c.Logins.Lookup
	p.r.c.Logins.Lookup = func(name string) (*Peer, error) { return lookup(strings.ToLower(name)) }
	p.connect()
	p.run()
	if n := len(p.r.Sessions()); n != 2 {
		t.Fatalf("%d sessions, want the new one in place of the first", n)
	}
	a, _ := first.SPIs()
	for _, s := range p.r.Sessions() {
		if b, _ := s.SPIs(); a == b {
			t.Error("the first session is still there")
		}
	}
}

func TestGuesses(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	home, office, thief := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("198.51.100.1")
	var g guesses
	try := func(from netip.Addr) time.Duration { return g.allow(now, "carol", from) }
	for _, a := range []netip.Addr{home, office} {
		if try(a) != 0 {
			t.Fatal("no first try")
		}
		g.succeeded(now, "carol", a)
	}
	for range maxTries {
		if try(thief) != 0 {
			t.Fatal("too few tries")
		}
	}
	if w := try(thief); w != tryEvery {
		t.Errorf("wait of %v", w)
	}
	if try(netip.MustParseAddr("198.51.100.2")) == 0 {
		t.Error("another address has tries of its own")
	}
	if try(home) != 0 || try(netip.MustParseAddr("2001:db8::2")) != 0 {
		t.Error("a thief locks the user out where it is")
	}
	now = now.Add(tryEvery)
	if try(thief) != 0 || try(thief) == 0 {
		t.Error("one try a minute is not what there is")
	}
	// The table is bounded, and those that wait longest stay.
	for i := range 2 * maxGuessUsers {
		g.allow(now, fmt.Sprint("user ", i), thief)
	}
	if len(g.users) > maxGuessUsers {
		t.Errorf("%d users", len(g.users))
	}
	if try(thief) == 0 {
		t.Error("names without end make a user's wait forgotten")
	}
}
