package mobility

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

var udp2 = transports.UDPOn(4500)

// answer gives the client a reply by an encapsulation, as it is after change.
func (rt *registrarTest) answer(by transports.Name, change func(*regmsg.Reply)) error {
	q := rt.request[rt.last[by]]
	m := &regmsg.Reply{HomeAddress: homeAddress, HomeAgent: homeAgent, Lifetime: q.Lifetime, Identification: q.Identification, Number: q.Number, Revision: 1}
	change(m)
	return rt.r.Receive(rt.now, m, rt.last[by])
}

// oneWay is the reply by a way that no copy has come by, of a server that has heard
// a full one by UDP.
func oneWay(m *regmsg.Reply) {
	m.OneWay, m.PaddedSize, m.Cookie = true, 1400, regmsg.Cookie{9}
	m.Heard = []regmsg.Heard{{Encapsulation: udp, Full: true}}
}

// pairOf brings a client to where its data goes up by UDP and comes by another port.
func pairOf(t *testing.T) *registrarTest {
	rt := newRegistrarTest(t, nil, udp, udp2, tcp)
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain(tcp)
	for _, n := range []transports.Name{udp, udp2} {
		if m := rt.request[rt.last[n]]; len(m.Ways) > 0 {
			t.Errorf("the first copy by %s asks for other ways: %v", n, m.Ways)
		}
		rt.r.Ready(rt.now, rt.last[n])
	}
	rt.after(firstResend)
	rt.drain(tcp)
	local, remote := netip.MustParseAddrPort(rt.local), netip.MustParseAddrPort("198.51.100.1:443")
	if ws := rt.request[rt.last[udp]].Ways; len(ws) == 0 || ws[0] != (regmsg.Way{Encapsulation: udp2, Local: local, Remote: remote}) {
		t.Fatalf("the second copy by udp asks for %v", ws)
	}
	rt.log = nil
	if err := rt.answer(udp2, oneWay); err != nil {
		t.Fatal(err)
	}
	rt.want("it is heard that one passes down and another up", "use udp", "decision udp")
	if m := rt.request[rt.last[udp]]; m.Down != udp2 || m.Cookie != (regmsg.Cookie{9}) || m.Decision != 1 {
		t.Fatalf("decision: %+v", m)
	}
	if p, d := rt.r.Current(), rt.r.DownPath(); p.Name != udp || d.Name != udp2 || rt.r.Registering() {
		t.Fatalf("up by %+v, down by %+v", p, d)
	}
	return rt
}

// consent has the server obey the decision for two ways.
func consent(m *regmsg.Reply) {
	m.OneWay, m.Up, m.Down, m.Here, m.Decision, m.Revision, m.Validated = true, udp, udp2, true, 1, 2, true
	m.Cookie = regmsg.Cookie{9}
}

func TestTwoWays(t *testing.T) {
	rt := pairOf(t)
	rt.after(firstResend)
	rt.want("it is told again", "decision udp")
	if err := rt.answer(udp2, consent); err != nil {
		t.Fatal(err)
	}
	rt.log = nil
	rt.after(10 * time.Second)
	if d := rt.r.DownPath(); d.Name != udp2 || rt.open[rt.r.Current().ID] != udp || rt.open[d.ID] != udp2 || !rt.r.Last().Done {
		t.Fatalf("after the registration: up by %v, down by %v, open %v", rt.r.Current(), d, rt.open)
	}
	for _, l := range rt.log {
		if l == "decision udp" {
			t.Error("it is told again after the server has obeyed")
		}
	}

	// What passes both ways is looked for, and takes over.
	for n := 0; n < 40 && (rt.r.Last().Trigger != TriggerClimb || rt.r.Last().Done); n++ {
		rt.after(time.Second)
	}
	if last := rt.r.Last(); last.Trigger != TriggerClimb || last.Done {
		t.Fatalf("no probe: %+v", last)
	}
	rt.log = nil
	if err := rt.answer(tcp, func(m *regmsg.Reply) { m.PaddedSize, m.Cookie = 900, regmsg.Cookie{1} }); err != nil {
		t.Fatal(err)
	}
	rt.want("a way that passes both ways", "confirmation tcp", "use tcp", "decision tcp")
	if m := rt.request[rt.last[tcp]]; m.Down != "" || rt.r.DownPath().ID != 0 {
		t.Errorf("decision: %+v, down by %v", m, rt.r.DownPath())
	}
	if err := rt.answer(tcp, func(m *regmsg.Reply) {
		m.Up, m.Down, m.Here, m.Decision, m.Validated = tcp, tcp, true, 1, true
	}); err != nil {
		t.Fatal(err)
	}
	rt.after(10 * time.Second)
	if len(rt.open) != 1 || rt.open[rt.r.Current().ID] != tcp {
		t.Errorf("open at the end: %v", rt.open)
	}
}

// TestTwoWaysAreLost loses either of them, or both by a forced encapsulation: a
// registration follows, and nothing stays open that nobody uses.
func TestTwoWaysAreLost(t *testing.T) {
	for _, name := range []transports.Name{udp, udp2, tcp} {
		t.Run(string(name), func(t *testing.T) {
			rt := pairOf(t)
			if err := rt.answer(udp2, consent); err != nil {
				t.Fatal(err)
			}
			rt.after(5 * time.Second)
			before := rt.r.Last().Number
			if name == tcp {
				rt.r.Force(rt.now, tcp)
				rt.after(4 * time.Second)
			} else {
				id := rt.last[name]
				delete(rt.open, id)
				rt.r.Closed(rt.now, id, errors.New("refused"))
			}
			rt.drain()
			if last := rt.r.Last(); last.Number == before || last.Done {
				t.Fatalf("no registration: %+v", last)
			}
			rt.after(ms)
			if err := rt.answer(tcp, func(m *regmsg.Reply) {
				m.PaddedSize, m.Up, m.Down, m.Here, m.Validated = 900, tcp, tcp, true, true
			}); err != nil {
				t.Fatal(err)
			}
			rt.after(5 * time.Second)
			if len(rt.open) != 1 || rt.open[rt.r.Current().ID] != tcp || rt.r.DownPath().ID != 0 {
				t.Errorf("open at the end: %v, down by %v", rt.open, rt.r.DownPath())
			}
		})
	}
}

// TestTwoWaysNotNeeded has what passes both ways answer before, at once after, and
// after the ways are known: it has the data.
func TestTwoWaysNotNeeded(t *testing.T) {
	both := func(m *regmsg.Reply) { m.PaddedSize, m.Up, m.Down, m.Here, m.Validated = 900, tcp, tcp, true, true }
	rt := newRegistrarTest(t, nil, udp, udp2, tcp)
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain()
	if err := rt.answer(tcp, both); err != nil {
		t.Fatal(err)
	}
	rt.after(firstResend + 2*firstResend)
	if ws := rt.request[rt.last[udp]].Ways; len(ws) > 0 {
		t.Errorf("asks for %v where TCP has answered", ws)
	}
	if err := rt.answer(udp2, oneWay); err != nil {
		t.Fatal(err)
	}
	rt.drain()
	if rt.r.Current().Name != tcp || rt.r.DownPath().ID != 0 {
		t.Errorf("up by %v, down by %v", rt.r.Current(), rt.r.DownPath())
	}
}

// A waysTest plays the owner of a Binding whose client is heard at carrier 1, by UDP,
// and hears at carrier 9, by another port.
type waysTest struct {
	*bindingTest
	reached []netip.AddrPort
	sent    map[CarrierID]int // bytes, as reckoned
	used    Use
	closed  []CarrierID
}

func newWaysTest(t *testing.T) *waysTest {
	wt := &waysTest{bindingTest: newBindingTest(t), sent: make(map[CarrierID]int)}
	wt.b = NewBinding(BindingConfig{HomeAddress: homeAddress, HomeAgent: homeAgent,
		Reach: func(n transports.Name, local netip.Addr, to netip.AddrPort) (CarrierID, transports.Description, bool) {
			wt.reached = append(wt.reached, to)
			return CarrierID(9 + 10*(len(wt.reached)-1)), transports.Description{Encapsulation: udp, Source: netip.AddrPortFrom(local, n.Port()), Destination: to}, n == udp2
		}})
	return wt
}

func (wt *waysTest) act() {
	for _, a := range wt.b.Actions() {
		switch a := a.(type) {
		case Send:
			wt.last[a.ID] = a.Message.(*regmsg.Reply)
			wt.sent[a.ID] += max(a.PadTo, 300)
		case Use:
			wt.used = a
		case Close:
			wt.closed = append(wt.closed, a.ID)
		}
	}
}

// ask sends both copies by UDP, which ask for an answer by another port.
func (wt *waysTest) ask(n, size int) {
	wt.t.Helper()
	way := regmsg.Way{Encapsulation: udp2, Local: netip.MustParseAddrPort("192.168.1.10:5000"), Remote: netip.MustParseAddrPort("198.51.100.1:4500")}
	for _, size := range []int{0, size} {
		if err := wt.copy(n, "u1", size, func(m *regmsg.Request) { m.Ways = []regmsg.Way{way} }); err != nil {
			wt.t.Fatal(err)
		}
		wt.act()
	}
}

// decide has a decision come by a carrier, with the cookie that went by another.
func (wt *waysTest) decide(n int, by string, cookie regmsg.Cookie, decision uint16) error {
	err := wt.copy(n, by, 0, func(m *regmsg.Request) { m.Cookie, m.Decision, m.Down = cookie, decision, udp2 })
	wt.act()
	return err
}

func TestBindingTwoWays(t *testing.T) {
	wt := newWaysTest(t)
	wt.copies(1, "u1")
	wt.act()
	if len(wt.reached) > 0 {
		t.Fatalf("reached unasked: %v", wt.reached)
	}
	wt.ask(1, 1400)
	if len(wt.reached) != 1 || wt.reached[0] != netip.MustParseAddrPort("203.0.113.9:5000") {
		t.Fatalf("reached %v", wt.reached)
	}
	m := wt.last[9]
	if m == nil || !m.OneWay || m.PaddedSize != 1400 || m.Validated || len(m.Heard) != 1 || m.Heard[0] != (regmsg.Heard{Encapsulation: udp, Full: true}) {
		t.Fatalf("by the other way: %+v", m)
	}
	cookie := m.Cookie
	if wt.used.ID != 1 {
		t.Fatalf("data leaves by %+v before the client has decided", wt.used)
	}
	wt.ask(1, 1400)
	if len(wt.reached) != 1 || wt.last[9].Cookie != cookie {
		t.Errorf("asked again: reached %v, another cookie: %v", wt.reached, wt.last[9].Cookie != cookie)
	}

	// Captured, it moves nothing from elsewhere, nor with another's cookie.
	if err := wt.decide(1, "u2", cookie, 1); !errors.Is(err, ErrCarrier) {
		t.Errorf("decision from elsewhere: %v", err)
	}
	if err := wt.decide(1, "u1", wt.last[1].Cookie, 1); !errors.Is(err, ErrCookie) {
		t.Errorf("decision with a cookie of the way up: %v", err)
	}
	if err := wt.decide(2, "u1", cookie, 1); !errors.Is(err, ErrStale) {
		t.Errorf("decision of another registration: %v", err)
	}
	if wt.used.ID != 1 {
		t.Fatalf("data leaves by %+v", wt.used)
	}
	if err := wt.decide(1, "u1", cookie, 2); err != nil {
		t.Fatal(err)
	}
	if wt.used.ID != 9 || wt.used.From != 1 || !wt.used.Validated {
		t.Fatalf("data leaves by %+v", wt.used)
	}
	if m := wt.last[9]; m.Up != udp || m.Down != udp2 || !m.Here || m.Decision != 2 || !m.Validated {
		t.Errorf("answer: %+v", m)
	}
	if err := wt.decide(1, "u1", cookie, 1); !errors.Is(err, ErrStale) {
		t.Errorf("an older decision: %v", err)
	}

	// A NAT changes the mapping of the way up: data stays. From another port of the
	// server's it is not that way.
	wt.b.Advance(wt.now)
	a := wt.arrival("u3", 1400)
	if err := wt.b.Rebound(wt.now, a); err != nil {
		t.Fatal(err)
	}
	if wt.act(); wt.used.ID != 9 || wt.used.From != 3 || wt.b.Current().ID != 9 {
		t.Errorf("rebound: %+v", wt.used)
	}
	a = wt.arrival("u4", 1400)
	a.Seen.Destination = netip.MustParseAddrPort("198.51.100.1:4500")
	if err := wt.b.Rebound(wt.now, a); !errors.Is(err, ErrCarrier) {
		t.Errorf("rebound at another port: %v", err)
	}

	// A probe leaves both as they are, and what passes both ways ends it.
	if err := wt.copy(2, "t7", 900, func(m *regmsg.Request) { m.Probe = true }); err != nil {
		t.Fatal(err)
	}
	wt.act()
	wt.now = wt.now.Add(time.Minute)
	wt.b.Advance(wt.now)
	wt.act()
	for _, id := range wt.closed {
		if id == 9 || id == 3 {
			t.Errorf("carrier %d is closed while it has the data", id)
		}
	}
	if err := wt.copy(2, "t7", 0, func(m *regmsg.Request) { m.Cookie, m.Decision = wt.last[7].Cookie, 1 }); err != nil {
		t.Fatal(err)
	}
	if wt.act(); wt.used.ID != 7 || wt.used.From != 0 || wt.last[7].Up != tcp || wt.last[7].Down != tcp {
		t.Errorf("both ways: %+v, %+v", wt.used, wt.last[7])
	}
}

// TestBindingReachIsBounded asks again and again, also for more than may be: no more
// than three times what came from an address goes to it, all its ports together, and
// nothing to another address.
func TestBindingReachIsBounded(t *testing.T) {
	wt := newWaysTest(t)
	received := 0
	for i := range 40 {
		var ws []regmsg.Way
		for k := range regmsg.MaxWays {
			ws = append(ws, regmsg.Way{Encapsulation: udp2, Local: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.99"), uint16(1000+regmsg.MaxWays*i+k))})
		}
		if err := wt.copy(1, "u1", 1000, func(m *regmsg.Request) { m.Ways = ws }); err != nil {
			t.Fatal(err)
		}
		received += 1000
		wt.act()
		sent := 0
		for _, n := range wt.sent {
			sent += n
		}
		if sent > amplification*received {
			t.Fatalf("%d bytes came and %d went", received, sent)
		}
		if n := len(wt.b.carriers); n > maxBound {
			t.Fatalf("%d carriers", n)
		}
	}
	for _, to := range wt.reached {
		if to.Addr() != netip.MustParseAddr("203.0.113.9") {
			t.Errorf("reached %v", to)
		}
	}
	if len(wt.reached) == 0 {
		t.Error("nothing was reached")
	}
}
