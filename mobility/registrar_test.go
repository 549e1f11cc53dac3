package mobility

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	udp = transports.UDP
	tcp = transports.TCP
	web = transports.WebSocket
	ms  = time.Millisecond
)

var (
	homeAddress = netip.MustParseAddr("10.9.0.2")
	homeAgent   = netip.MustParseAddr("10.9.0.1")
	epoch       = time.Unix(1_000_000, 0)
)

// A registrarTest plays the owner and the server of a Registrar.
type registrarTest struct {
	t     *testing.T
	r     *Registrar
	now   time.Time
	local string

	open    map[CarrierID]transports.Name // opened and not closed
	last    map[transports.Name]CarrierID
	request map[CarrierID]*regmsg.Request // the last one by each carrier
	log     []string                      // what was asked for, in order
}

func newRegistrarTest(t *testing.T, change func(*RegistrarConfig), names ...transports.Name) *registrarTest {
	cfg := RegistrarConfig{HomeAddress: homeAddress, HomeAgent: homeAgent, Encapsulations: names, Identification: 100}
	if change != nil {
		change(&cfg)
	}
	return &registrarTest{t: t, r: NewRegistrar(cfg), now: epoch, local: "192.0.2.10:1000",
		open: make(map[CarrierID]transports.Name), last: make(map[transports.Name]CarrierID), request: make(map[CarrierID]*regmsg.Request)}
}

// drain does what the Registrar asks for; carriers open at once unless fail
// names them.
func (rt *registrarTest) drain(fail ...transports.Name) {
	rt.t.Helper()
	for as := rt.r.Actions(); len(as) > 0; as = rt.r.Actions() {
		for _, a := range as {
			switch a := a.(type) {
			case Open:
				rt.log = append(rt.log, "open "+string(a.Name))
				rt.last[a.Name] = a.ID
				if slices.Contains(fail, a.Name) {
					rt.r.OpenFailed(rt.now, a.ID, errors.New("refused"))
					continue
				}
				rt.open[a.ID] = a.Name
				d := desc(rt.local, "198.51.100.1:443")
				d.Encapsulation = a.Name
				rt.r.Opened(rt.now, a.ID, d)
			case Send:
				m := a.Message.(*regmsg.Request)
				if rt.open[a.ID] == "" {
					rt.t.Fatalf("sent by carrier %d, which is not open", a.ID)
				}
				kind := "short"
				switch {
				case m.Decision != 0:
					kind = "decision"
				case m.Confirmation():
					kind = "confirmation"
				case a.PadTo > 0:
					kind = "padded"
				}
				if !m.Confirmation() && int(m.PaddedSize) != a.PadTo {
					rt.t.Errorf("padded to %d, and it says %d", a.PadTo, m.PaddedSize)
				}
				rt.request[a.ID] = m
				rt.log = append(rt.log, fmt.Sprintf("%s %s", kind, rt.open[a.ID]))
			case Use:
				rt.log = append(rt.log, "use "+string(rt.open[a.ID]))
			case Close:
				rt.log = append(rt.log, "close "+string(rt.open[a.ID]))
				delete(rt.open, a.ID)
			}
		}
	}
}

// want compares what was asked for since the last call.
func (rt *registrarTest) want(why string, what ...string) {
	rt.t.Helper()
	rt.drain()
	if got, want := strings.Join(rt.log, ", "), strings.Join(what, ", "); got != want {
		rt.t.Fatalf("%s:\n got %s\nwant %s", why, got, want)
	}
	rt.log = nil
}

// after lets time pass, from deadline to deadline.
func (rt *registrarTest) after(d time.Duration) {
	rt.t.Helper()
	end := rt.now.Add(d)
	for n := 0; ; n++ {
		next := rt.r.NextTimeout()
		if next.IsZero() || next.After(end) {
			break
		}
		if n > 1000 {
			rt.t.Fatal("deadlines that never end")
		}
		rt.now = maxTime(rt.now, next)
		rt.r.Advance(rt.now)
		rt.drain()
	}
	rt.now = end
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reply answers the last copy by an encapsulation.
func (rt *registrarTest) reply(by transports.Name, change func(*regmsg.Reply)) error {
	id := rt.last[by]
	q := rt.request[id]
	m := &regmsg.Reply{HomeAddress: homeAddress, HomeAgent: homeAgent, Lifetime: q.Lifetime,
		Identification: q.Identification, Number: q.Number, Revision: 1, Up: by, Down: by,
		Verdict: NAPT, PaddedSize: 1400, Validated: by != udp || q.Confirmation(), Cookie: regmsg.Cookie{byte(id)}}
	if change != nil {
		change(m)
	}
	m.Here, m.Decision = m.Up == by, q.Decision
	return rt.r.Receive(rt.now, m, id)
}

func selects(n transports.Name, revision uint16) func(*regmsg.Reply) {
	return func(m *regmsg.Reply) { m.Up, m.Down, m.Revision = n, n, revision }
}

func (rt *registrarTest) mustReply(by transports.Name, change func(*regmsg.Reply)) {
	rt.t.Helper()
	if err := rt.reply(by, change); err != nil {
		rt.t.Fatal(err)
	}
}

// settled registers by one encapsulation and forgets what was asked for.
func (rt *registrarTest) settled(t Trigger, by transports.Name) {
	rt.t.Helper()
	rt.r.Start(rt.now, t)
	rt.drain()
	rt.after(20 * ms)
	rt.mustReply(by, nil)
	rt.drain()
	rt.after(2 * time.Second)
	if by == udp {
		rt.mustReply(udp, nil)
	}
	rt.after(time.Second)
	if rt.r.Current().Name != by {
		rt.t.Fatalf("current is %v", rt.r.Current())
	}
	rt.log = nil
}

func TestMoveWhereUDPIsSlow(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	rt.r.Start(rt.now, TriggerAddress)
	rt.want("a copy by each encapsulation at once", "open udp", "open tcp", "short udp", "padded udp", "short tcp", "padded tcp")
	if !rt.r.Registering() {
		t.Error("not registering")
	}
	rt.after(40 * ms)
	rt.mustReply(tcp, nil)
	rt.want("the first reply starts the data", "use tcp")
	rt.after(10 * ms)
	rt.mustReply(udp, selects(udp, 2))
	rt.want("a preferred one takes over, and its address is confirmed", "confirmation udp", "use udp")
	rt.mustReply(tcp, selects(tcp, 1))
	rt.want("a late reply of a lower revision changes nothing")
	rt.after(3 * time.Second)
	rt.want("whether the confirmation has arrived is not known", "decision udp", "decision udp", "decision udp")
	rt.mustReply(udp, selects(udp, 2))
	rt.after(0)
	rt.want("the rest is closed", "confirmation udp", "close tcp")
	if rt.r.Registering() || !rt.r.NextTimeout().IsZero() {
		t.Errorf("not idle: %v", rt.r.NextTimeout())
	}
	p := rt.r.Current()
	if p.Name != udp || p.RTT != 50*ms || p.Verdict != NAPT || p.Remote.Port() != 443 || p.Since != epoch.Add(50*ms) {
		t.Errorf("current is %+v", p)
	}
	rec := rt.r.History()[0]
	if rec.Selected != udp || rec.Duration != 40*ms || !rec.Done || rec.Revision != 2 || rec.Trigger != TriggerAddress || rec.Number != 1 ||
		rec.Copies[0].Sent != 2 || rec.Copies[1].RTT != 40*ms {
		t.Errorf("record is %+v", rec)
	}
}

func TestShortReplyProvesNothing(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp)
	rt.r.Start(rt.now, TriggerConnect)
	rt.drain()
	rt.log = nil
	rt.mustReply(udp, func(m *regmsg.Reply) { m.PaddedSize = 0 })
	rt.want("the address is confirmed, the path is not used", "confirmation udp")
	rt.after(249 * ms)
	rt.want("too early")
	rt.after(ms)
	rt.want("the copies go out again", "short udp", "padded udp")
	rt.mustReply(udp, nil)
	rt.want("large packets pass", "confirmation udp", "use udp")
}

func TestSelectedWayBackIsBlocked(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain()
	rt.log = nil
	rt.after(20 * ms)
	rt.mustReply(tcp, selects(udp, 1))
	rt.want("data starts by what is proven", "use tcp")
	rt.after(299 * ms)
	rt.want("udp is sent again meanwhile", "short udp", "padded udp")
	rt.after(ms)
	rt.want("the client decides", "decision tcp")
	if m := rt.request[rt.last[tcp]]; m.Cookie != (regmsg.Cookie{byte(rt.last[tcp])}) || m.PaddedSize == 0 {
		t.Errorf("decision is %+v", m)
	}
	rt.after(250 * ms)
	rt.want("and says so again", "decision tcp")
	rt.mustReply(tcp, selects(tcp, 2))
	rt.after(200 * ms)
	rt.want("until the server agrees; udp gets its chance still", "short udp", "padded udp")
	rt.mustReply(udp, selects(tcp, 2))
	rt.want("a better one that answers after all is decided for", "confirmation udp", "use udp", "decision udp")
	rt.mustReply(udp, selects(udp, 3))
	rt.drain()
	rt.log = nil
	rt.after(time.Minute)
	rt.want("the round ends", "close tcp")
}

func TestRepliesThatAreIgnored(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	if err := rt.r.Receive(rt.now, &regmsg.Reply{HomeAddress: homeAddress, HomeAgent: homeAgent}, 1); !errors.Is(err, ErrStale) {
		t.Errorf("before any registration: %v", err)
	}
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain()
	rt.log = nil
	for name, tt := range map[string]struct {
		change func(*regmsg.Reply)
		want   error
	}{
		"number":         {func(m *regmsg.Reply) { m.Number++ }, ErrStale},
		"identification": {func(m *regmsg.Reply) { m.Identification-- }, ErrStale},
		"home address":   {func(m *regmsg.Reply) { m.HomeAddress = homeAgent }, ErrAddress},
		"home agent":     {func(m *regmsg.Reply) { m.HomeAgent = homeAddress }, ErrAddress},
	} {
		if err := rt.reply(udp, tt.change); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	var refused *ReplyError
	if err := rt.reply(udp, func(m *regmsg.Reply) { m.Code = regmsg.CodeProhibited }); !errors.As(err, &refused) || refused.Code != regmsg.CodeProhibited {
		t.Errorf("refusal: got %v", err)
	}
	old := rt.request[rt.last[udp]]
	oldID := rt.last[udp]
	rt.want("nothing is done for any of them")
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain()
	rt.log = nil
	m := &regmsg.Reply{HomeAddress: homeAddress, HomeAgent: homeAgent, Number: old.Number, Identification: old.Identification, PaddedSize: 1400, Up: udp}
	if err := rt.r.Receive(rt.now, m, rt.last[udp]); !errors.Is(err, ErrStale) {
		t.Errorf("older registration: got %v", err)
	}
	m.Number, m.Identification = old.Number+1, old.Identification+1
	if err := rt.r.Receive(rt.now, m, oldID); !errors.Is(err, ErrCarrier) {
		t.Errorf("older carrier: got %v", err)
	}
	rt.want("nor for these")
	if rt.r.Current().ID != 0 {
		t.Errorf("current is %v", rt.r.Current())
	}
}

func TestNothingAnswersForMinutes(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain(tcp)
	rt.log = nil
	rt.after(250 * ms)
	rt.want("what failed is opened again, what gets lost is sent again", "short udp", "padded udp", "open tcp", "short tcp", "padded tcp")
	rt.after(10 * time.Minute)
	if n := strings.Count(strings.Join(rt.log, " "), "open tcp"); n < 50 {
		t.Errorf("tcp was opened %d times", n)
	}
	if len(rt.open) > 2 {
		t.Errorf("%d carriers are open", len(rt.open))
	}
	if len(rt.r.History()) != 1 || !rt.r.Registering() {
		t.Errorf("history is %+v", rt.r.History())
	}
	rt.log = nil
	rt.mustReply(udp, nil)
	rt.want("and then one does", "confirmation udp", "use udp")
}

func TestFailedCarriersBackOff(t *testing.T) {
	rt := newRegistrarTest(t, nil, tcp)
	rt.r.Start(rt.now, TriggerAddress)
	var at []time.Duration
	for range 10 {
		at = append(at, rt.now.Sub(epoch))
		rt.drain(tcp)
		rt.now = rt.r.NextTimeout()
		rt.r.Advance(rt.now)
	}
	want := []time.Duration{0, 250 * ms, 750 * ms, 1750 * ms, 3750 * ms, 7750 * ms, 15750 * ms, 31750 * ms, 61750 * ms, 91750 * ms}
	if !slices.Equal(at, want) {
		t.Errorf("opened at %v, want %v", at, want)
	}
	if c := rt.r.History()[0].Copies[0]; c.Error != "refused" || c.Sent != 0 {
		t.Errorf("record is %+v", c)
	}
}

func TestPace(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp)
	for range RegistrationBurst + 5 {
		rt.r.Start(rt.now, TriggerAddress)
		rt.drain()
	}
	if n := rt.r.History()[len(rt.r.History())-1].Number; n != RegistrationBurst {
		t.Errorf("%d registrations at once", n)
	}
	rt.log = nil
	rt.after(999 * ms)
	if n := len(rt.r.History()); n != RegistrationBurst {
		t.Errorf("%d registrations within a second", n)
	}
	rt.after(ms)
	h := rt.r.History()
	if n := len(h); n != RegistrationBurst+1 || h[n-1].Trigger != TriggerAddress {
		t.Errorf("the rest became %d", n-RegistrationBurst)
	}
	rt.after(5 * time.Second)
	if n := len(rt.r.History()); n != RegistrationBurst+1 {
		t.Errorf("%d registrations in the end", n)
	}
	// Identifications only grow.
	if m := rt.request[rt.last[udp]]; m.Number != RegistrationBurst+1 || m.Identification != 100+RegistrationBurst+1 {
		t.Errorf("request is %+v", m)
	}
}

func TestDataStaysUntilTheAnswer(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	rt.settled(TriggerConnect, udp)
	before := rt.r.Current()
	rt.r.Start(rt.now, TriggerSilence)
	rt.want("fresh carriers for all", "open udp", "open tcp", "short udp", "padded udp", "short tcp", "padded tcp")
	if rt.r.Current() != before || !rt.r.Registering() {
		t.Errorf("current is %v", rt.r.Current())
	}
	rt.r.Start(rt.now, TriggerSilence)
	rt.r.Start(rt.now, TriggerSocket)
	rt.want("one is enough")
	rt.mustReply(tcp, nil)
	rt.want("the answer moves the data", "use tcp")
	rt.after(2 * time.Second)
	rt.drain()
	if n := len(rt.open); n != 1 {
		t.Errorf("%d carriers are open", n)
	}
}

func TestSocketEnds(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	rt.settled(TriggerConnect, tcp)
	rt.r.Closed(rt.now, 12345, nil)
	rt.want("an unknown carrier is nothing")
	rt.r.Closed(rt.now, rt.last[tcp], errors.New("reset"))
	rt.want("the carrier in use ends", "open udp", "open tcp", "short udp", "padded udp", "short tcp", "padded tcp")
	if h := rt.r.History(); h[1].Trigger != TriggerSocket || rt.r.Current().ID != 0 {
		t.Errorf("record is %+v", h[1])
	}
	rt.mustReply(udp, nil)
	rt.mustReply(tcp, selects(udp, 1))
	rt.want("registered", "confirmation udp", "use udp")
	rt.r.Closed(rt.now, rt.last[udp], errors.New("unreachable"))
	rt.want("another that has answered takes over", "use tcp", "decision tcp")
}

func TestClimb(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp, web)
	rt.settled(TriggerConnect, web)
	start := rt.now
	var waits []time.Duration
	for range 8 {
		rt.now = rt.r.NextTimeout()
		rt.r.Advance(rt.now)
		rt.want("only the better ones", "open udp", "open tcp", "short udp", "padded udp", "short tcp", "padded tcp")
		if !rt.request[rt.last[udp]].Probe || rt.r.Registering() {
			t.Fatal("not a probe")
		}
		waits = append(waits, rt.now.Sub(start))
		rt.after(climbTime)
		if got := rt.log[len(rt.log)-2:]; !slices.Equal(got, []string{"close udp", "close tcp"}) || rt.r.Current().Name != web {
			t.Fatalf("a climb without an answer ends with %v", got)
		}
		start, rt.log = rt.now, nil
	}
	// The first round ended 1 s before settled returned.
	if want := []time.Duration{14 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute}; !slices.Equal(waits, want) {
		t.Errorf("climbs after %v, want %v", waits, want)
	}
	rt.now = rt.r.NextTimeout()
	rt.r.Advance(rt.now)
	rt.drain()
	rt.log = nil
	rt.mustReply(udp, selects(web, 0))
	rt.want("the client decides", "confirmation udp", "use udp", "decision udp")
	rt.mustReply(udp, selects(udp, 1))
	rt.after(time.Second)
	rt.want("the old carrier stays for what is in flight", "confirmation udp")
	rt.after(time.Second)
	rt.want("and is closed", "close websocket", "close tcp")
	rt.after(time.Hour)
	rt.want("nothing is better than udp")
}

func TestESPIsClimbedToWithoutTranslation(t *testing.T) {
	for verdict, want := range map[Verdict]string{NAT: "", None: "open esp"} {
		rt := newRegistrarTest(t, nil, transports.ESP, udp)
		rt.r.Start(rt.now, TriggerConnect)
		rt.want("not at first", "open udp", "short udp", "padded udp")
		rt.after(ms)
		rt.mustReply(udp, func(m *regmsg.Reply) { m.Verdict = verdict })
		rt.drain()
		rt.after(2 * time.Second)
		rt.mustReply(udp, func(m *regmsg.Reply) { m.Verdict = verdict })
		rt.drain()
		rt.log = nil
		rt.after(16 * time.Second)
		if got := strings.Join(rt.log, ", "); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%v: got %s", verdict, got)
		}
	}
}

// ESP that passes the probe and no data is given up here, and tried again elsewhere.
func TestESPThatIsSilentIsRemembered(t *testing.T) {
	none := func(m *regmsg.Reply) { m.Verdict = None }
	toESP := func(m *regmsg.Reply) { none(m); m.Up, m.Down, m.Revision = transports.ESP, transports.ESP, 1 }
	rt := newRegistrarTest(t, nil, transports.ESP, udp)
	connect := func(trigger Trigger) {
		rt.r.Start(rt.now, trigger)
		rt.drain()
		rt.after(ms)
		rt.mustReply(udp, none)
		rt.drain()
		rt.after(2 * time.Second)
		rt.mustReply(udp, none) // to the confirmation
		rt.drain()
		rt.log = nil
		rt.after(20 * time.Second)
	}
	climbed := func() bool { return slices.Contains(rt.log, "open esp") }
	connect(TriggerConnect)
	for range 2 { // to the probe, and to the decision
		rt.mustReply(transports.ESP, toESP)
		rt.drain()
	}
	if n := rt.r.Current().Name; n != transports.ESP {
		t.Fatalf("data leaves by %q, not by the probe's ESP", n)
	}
	rt.after(10 * time.Second)
	connect(TriggerSilence)
	rt.after(time.Hour)
	if climbed() {
		t.Error("ESP is tried again although data was lost by it here")
	}
	connect(TriggerAddress)
	if !climbed() {
		t.Error("ESP is not tried in another network")
	}
}

func TestAdoptedCarriers(t *testing.T) {
	id := CarrierID(50)
	rt := newRegistrarTest(t, func(c *RegistrarConfig) { c.NextID = func() CarrierID { id++; return id } }, udp, tcp, web)
	for i, n := range []transports.Name{tcp, udp, udp} {
		d := desc(rt.local, "198.51.100.1:443")
		d.Encapsulation = n
		rt.open[CarrierID(i+1)], rt.last[n] = n, CarrierID(i+1)
		rt.r.Adopt(rt.now, CarrierID(i+1), d, i == 2)
	}
	rt.want("data leaves by the one that IKE was answered by", "use udp")
	if p := rt.r.Current(); p.ID != 3 || p.Name != udp || p.Local.Port() != 1000 {
		t.Errorf("current is %+v", p)
	}
	rt.r.Start(rt.now, TriggerConnect)
	rt.want("adopted ones are used at once", "close udp", "short udp", "padded udp", "short tcp", "padded tcp", "open websocket", "short websocket", "padded websocket")
	rt.after(10 * ms)
	rt.mustReply(udp, nil)
	rt.want("the same carrier, and what is known of it now", "confirmation udp", "use udp")
	if p := rt.r.Current(); p.RTT != 10*ms || p.Verdict != NAPT {
		t.Errorf("current is %+v", p)
	}
	rt.r.Start(rt.now, TriggerAddress)
	rt.want("nothing is used again after a move", "close tcp", "close websocket", "open udp", "open tcp", "open websocket",
		"short udp", "padded udp", "short tcp", "padded tcp", "short websocket", "padded websocket")
}

func TestClientDecides(t *testing.T) {
	rt := newRegistrarTest(t, func(c *RegistrarConfig) { c.ClientDecides = true }, tcp, udp)
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain()
	rt.log = nil
	rt.mustReply(udp, nil)
	rt.want("the first reply starts the data", "confirmation udp", "use udp")
	rt.mustReply(tcp, selects(udp, 1))
	rt.want("the client prefers tcp, whatever the server says", "use tcp", "decision tcp")
}

func TestHistoryIsBounded(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp)
	for range 3 * HistorySize {
		rt.r.Start(rt.now, TriggerAsked)
		rt.after(time.Second)
	}
	h := rt.r.History()
	if len(h) != HistorySize || h[len(h)-1].Number != 3*HistorySize {
		t.Errorf("%d records, the last is %d", len(h), h[len(h)-1].Number)
	}
	h[0].Copies[0].Error = "changed"
	if rt.r.History()[0].Copies[0].Error != "" {
		t.Error("history is not a copy")
	}
}
