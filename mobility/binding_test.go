package mobility

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// A bindingTest plays the owner and the client of a Binding. Carriers have
// fixed names: u1 is carrier 1 over udp, t2 carrier 2 over tcp, w3 over websocket.
type bindingTest struct {
	t    *testing.T
	b    *Binding
	now  time.Time
	log  []string
	last map[CarrierID]*regmsg.Reply
	name map[CarrierID]string
}

func newBindingTest(t *testing.T, preference ...transports.Name) *bindingTest {
	return &bindingTest{t: t, now: epoch, last: make(map[CarrierID]*regmsg.Reply), name: make(map[CarrierID]string),
		b: NewBinding(BindingConfig{HomeAddress: homeAddress, HomeAgent: homeAgent, Preference: preference})}
}

func (bt *bindingTest) arrival(c string, size int) Arrival {
	var id CarrierID
	if _, err := fmt.Sscanf(c[1:], "%d", &id); err != nil {
		bt.t.Fatal(err)
	}
	bt.name[id] = c
	seen := desc(fmt.Sprintf("203.0.113.9:%d", 40000+id), "198.51.100.1:443")
	seen.Encapsulation = map[byte]transports.Name{'u': udp, 't': tcp, 'w': web}[c[0]]
	return Arrival{Carrier: id, Seen: seen, Bytes: size, Validated: c[0] != 'u'}
}

// copy sends one copy of registration n, padded to size unless that is 0.
func (bt *bindingTest) copy(n int, c string, size int, change func(*regmsg.Request)) error {
	a := bt.arrival(c, max(size, 300))
	m := &regmsg.Request{HomeAddress: homeAddress, HomeAgent: homeAgent, Lifetime: regmsg.LifetimeInfinity,
		Identification: uint64(1000 + n), Number: uint32(n), PaddedSize: uint16(size), Sent: desc("192.168.1.10:4500", "198.51.100.1:443")}
	if change != nil {
		change(m)
	}
	return bt.b.Receive(bt.now, m, a)
}

// copies sends the short and the padded copy.
func (bt *bindingTest) copies(n int, c string) {
	bt.t.Helper()
	for _, size := range []int{0, 1400} {
		if err := bt.copy(n, c, size, nil); err != nil {
			bt.t.Fatal(err)
		}
	}
}

// confirm echoes the cookie of the last reply by c.
func (bt *bindingTest) confirm(n int, c string, change func(*regmsg.Request)) error {
	id := bt.arrival(c, 0).Carrier
	bt.collect()
	return bt.copy(n, c, 0, func(m *regmsg.Request) {
		if r := bt.last[id]; r != nil {
			m.Cookie, m.PaddedSize = r.Cookie, r.PaddedSize
		}
		if change != nil {
			change(m)
		}
	})
}

func (bt *bindingTest) collect() {
	for _, a := range bt.b.Actions() {
		switch a := a.(type) {
		case Send:
			m := a.Message.(*regmsg.Reply)
			bt.last[a.ID] = m
			if m.Up != m.Down || int(m.PaddedSize) != a.PadTo {
				bt.t.Errorf("reply is %+v", m)
			}
			bt.log = append(bt.log, fmt.Sprintf("%s:%d.%d=%s/%d", bt.name[a.ID], m.Number, m.Revision, m.Up, a.PadTo))
		case Use:
			mark := "?"
			if a.Validated {
				mark = ""
			}
			bt.log = append(bt.log, "use "+bt.name[a.ID]+mark)
		case Validate:
			bt.log = append(bt.log, "validate "+bt.name[a.ID])
		case Close:
			bt.log = append(bt.log, "close "+bt.name[a.ID])
		}
	}
}

func (bt *bindingTest) want(why string, what ...string) {
	bt.t.Helper()
	bt.collect()
	if got, want := strings.Join(bt.log, ", "), strings.Join(what, ", "); got != want {
		bt.t.Fatalf("%s:\n got %s\nwant %s", why, got, want)
	}
	bt.log = nil
}

func (bt *bindingTest) after(d time.Duration) {
	end := bt.now.Add(d)
	for next := bt.b.NextTimeout(); !next.IsZero() && !next.After(end); next = bt.b.NextTimeout() {
		bt.now = maxTime(bt.now, next)
		bt.b.Advance(bt.now)
	}
	bt.now = end
}

func TestSelection(t *testing.T) {
	bt := newBindingTest(t)
	bt.copies(1, "t1")
	bt.want("the first padded copy starts the data", "t1:1.0=/0", "t1:1.1=tcp/1400", "use t1")
	bt.copies(1, "w2")
	bt.want("a worse one is answered", "w2:1.1=tcp/0", "w2:1.1=tcp/1400")
	bt.copies(1, "u3")
	bt.want("a preferred one takes over, and the other hears of it", "u3:1.1=tcp/0", "u3:1.2=udp/1400", "t1:1.2=udp/0", "use u3?")
	bt.copies(1, "t1")
	bt.want("a copy that comes again is answered again", "t1:1.2=udp/0", "t1:1.2=udp/1400")
	if p := bt.b.Current(); p.ID != 3 || p.Name != udp || p.Verdict != NAPT || p.Remote != netip.MustParseAddrPort("203.0.113.9:40003") {
		t.Errorf("current is %+v", p)
	}
	m := bt.last[3]
	if m.Verdict != NAPT || m.Seen.Source.Port() != 40003 || m.Sent.Source.Port() != 443 || m.Sent.Destination.Port() != 40003 || m.Cookie.IsZero() || m.Validated {
		t.Errorf("reply is %+v", m)
	}
	if m.Cookie == bt.last[1].Cookie || !bt.last[1].Validated {
		t.Error("each path has a cookie of its own; a stream needs no confirmation")
	}
}

// Ports of UDP are all as good: the first that is heard keeps the data. They go by the
// client's names, so that both ends mean the same.
func TestPortsOfUDP(t *testing.T) {
	bt := newBindingTest(t, udp, transports.UDPOn(4500), tcp)
	by := func(n transports.Name) func(*regmsg.Request) {
		return func(m *regmsg.Request) { m.Sent.Encapsulation = n }
	}
	for i, n := range []transports.Name{"udp-4500", "udp", "udp-3478"} {
		for _, size := range []int{0, 1400} {
			if err := bt.copy(1, fmt.Sprintf("u%d", i+1), size, by(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	bt.want("the first starts the data, and the others are answered",
		"u1:1.0=/0", "u1:1.1=udp-4500/1400", "use u1?",
		"u2:1.1=udp-4500/0", "u2:1.1=udp-4500/1400", "u3:1.1=udp-4500/0", "u3:1.1=udp-4500/1400")
	if err := bt.copy(1, "t4", 1400, by("udp-4500")); err != nil {
		t.Fatal(err)
	}
	bt.want("what came by another encapsulation is called by that", "t4:1.1=udp-4500/1400")
	if err := bt.confirm(1, "u1", by("udp-4500")); err != nil {
		t.Fatal(err)
	}
	bt.want("proven", "validate u1")
	if err := bt.b.Rebound(bt.now, bt.arrival("u5", 200)); err != nil {
		t.Fatal(err)
	}
	bt.want("a new mapping keeps the name", "u5:1.2=udp-4500/0", "use u5?")
}

func TestPreferenceIsPolicy(t *testing.T) {
	bt := newBindingTest(t, web, udp)
	bt.copies(1, "u1")
	bt.copies(1, "t2")
	bt.copies(1, "w3")
	bt.collect()
	if bt.b.Current().ID != 3 || bt.last[2].Up != udp {
		t.Errorf("current is %+v", bt.b.Current())
	}
}

func TestPathValidation(t *testing.T) {
	bt := newBindingTest(t)
	bt.copies(1, "u1")
	bt.want("used, but not validated", "u1:1.0=/0", "u1:1.1=udp/1400", "use u1?")
	if err := bt.confirm(1, "u1", func(m *regmsg.Request) { m.Cookie[15] ^= 1 }); !errors.Is(err, ErrCookie) {
		t.Errorf("wrong cookie: %v", err)
	}
	if err := bt.confirm(1, "u2", func(m *regmsg.Request) { m.Cookie = bt.last[1].Cookie }); !errors.Is(err, ErrCarrier) {
		t.Errorf("cookie by another path: %v", err)
	}
	if err := bt.confirm(0, "u1", nil); !errors.Is(err, ErrStale) {
		t.Errorf("cookie of another registration: %v", err)
	}
	bt.want("nothing came of these")
	if err := bt.confirm(1, "u1", nil); err != nil {
		t.Fatal(err)
	}
	bt.want("no reply to a confirmation", "validate u1")
	if err := bt.confirm(1, "u1", nil); err != nil {
		t.Fatal(err)
	}
	bt.want("once is enough")
	if !bt.b.NextTimeout().IsZero() {
		t.Error("something is pending")
	}
	bt.copies(2, "u1")
	bt.want("a carrier stays validated", "u1:2.0=/0", "u1:2.1=udp/1400", "use u1")
}

func TestUnconfirmedReplies(t *testing.T) {
	bt := newBindingTest(t)
	bt.copies(1, "u1")
	bt.want("first", "u1:1.0=/0", "u1:1.1=udp/1400", "use u1?")
	bt.after(500 * ms)
	bt.want("before the address is proven data has what else may be sent there")
	if err := bt.confirm(1, "u1", func(m *regmsg.Request) { m.PaddedSize = 0 }); err != nil {
		t.Fatal(err)
	}
	bt.want("the address is proven, the size is not", "validate u1")
	bt.after(time.Second)
	bt.want("again", "u1:1.1=udp/0", "u1:1.1=udp/1400")
	bt.after(time.Hour)
	bt.collect()
	if n := len(bt.log); n != 6 {
		t.Errorf("%d more replies, want three pairs", n)
	}
	if !bt.b.NextTimeout().IsZero() {
		t.Error("it never ends")
	}
}

// TestReplay plays every request of a first registration again after a second.
func TestReplay(t *testing.T) {
	bt := newBindingTest(t)
	bt.copies(1, "u1")
	bt.copies(2, "t2")
	bt.collect()
	before := bt.b.Current()
	bt.log = nil
	for _, c := range []string{"u1", "t2", "w3"} {
		for _, size := range []int{0, 1400} {
			if err := bt.copy(1, c, size, nil); !errors.Is(err, ErrStale) {
				t.Errorf("%s: %v", c, err)
			}
		}
	}
	if err := bt.copy(3, "w3", 1400, func(m *regmsg.Request) { m.Identification = 1002 }); !errors.Is(err, ErrStale) {
		t.Errorf("another number with the same identification: %v", err)
	}
	if err := bt.copy(2, "w3", 1400, func(m *regmsg.Request) { m.HomeAddress = homeAgent }); !errors.Is(err, ErrAddress) {
		t.Errorf("another home address: %v", err)
	}
	bt.want("nothing came of these")
	if bt.b.Current() != before {
		t.Errorf("current is %+v", bt.b.Current())
	}
}

func TestSupersededCarriersAreClosed(t *testing.T) {
	bt := newBindingTest(t)
	a := bt.arrival("u1", 0)
	bt.b.Adopt(bt.now, a.Carrier, a.Seen, true)
	bt.want("the one IKE came by", "use u1")
	bt.copies(1, "u2")
	bt.collect()
	bt.log = nil
	bt.confirm(1, "u2", nil)
	bt.want("proven", "validate u2")
	bt.after(grace - 1)
	bt.want("what is in flight may arrive")
	bt.after(1)
	bt.want("then it is closed", "close u1")
	bt.after(time.Hour)
	bt.want("the one in use stays")
}

func TestProbe(t *testing.T) {
	probe := func(m *regmsg.Request) { m.Probe = true }
	bt := newBindingTest(t)
	bt.copies(1, "t1")
	bt.collect()
	bt.log = nil
	for _, size := range []int{0, 1400} {
		if err := bt.copy(2, "u2", size, probe); err != nil {
			t.Fatal(err)
		}
	}
	bt.want("a probe moves nothing", "u2:2.0=/0", "u2:2.0=/1400")
	if err := bt.confirm(2, "u2", probe); err != nil {
		t.Fatal(err)
	}
	bt.want("nor does its confirmation", "validate u2")
	bt.after(time.Hour)
	bt.want("the carrier in use stays")
	decide := func(m *regmsg.Request) { m.Decision = 1 }
	if err := bt.confirm(2, "u2", decide); err != nil {
		t.Fatal(err)
	}
	bt.want("the decision does", "u2:2.1=udp/0", "use u2")
	if err := bt.confirm(2, "u2", decide); err != nil {
		t.Fatal(err)
	}
	bt.want("and is answered each time", "u2:2.1=udp/0")
	bt.after(grace)
	bt.want("the old carrier goes", "close t1")
}

func TestDecisionOutlivesCopies(t *testing.T) {
	bt := newBindingTest(t)
	bt.copies(1, "u1")
	bt.copies(1, "t2")
	bt.collect()
	bt.log = nil
	if err := bt.confirm(1, "t2", func(m *regmsg.Request) { m.Decision = 1 }); err != nil {
		t.Fatal(err)
	}
	bt.want("the client decides against the preferred one", "t2:1.2=tcp/0", "use t2")
	bt.copies(1, "u1")
	if err := bt.confirm(1, "u1", nil); err != nil {
		t.Fatal(err)
	}
	bt.want("which may still be heard, and changes nothing", "u1:1.2=tcp/0", "u1:1.2=tcp/1400", "validate u1")
	bt.copies(2, "u1")
	bt.want("a new registration starts afresh", "u1:2.0=/0", "u1:2.1=udp/1400", "use u1")
}

func TestCarrierInUseEnds(t *testing.T) {
	bt := newBindingTest(t)
	bt.copies(1, "u1")
	bt.copies(1, "t2")
	bt.copies(1, "w3")
	bt.collect()
	bt.log = nil
	bt.b.Closed(bt.now, 1)
	bt.want("the best one that is proven takes over", "t2:1.2=tcp/0", "use t2")
	bt.b.Closed(bt.now, 3)
	bt.want("another one ends")
	bt.b.Closed(bt.now, 2)
	bt.want("the last one ends")
	if bt.b.Current() != (Path{}) {
		t.Errorf("current is %+v", bt.b.Current())
	}
	bt.copies(1, "t4")
	bt.want("a fresh carrier of the same registration", "t4:1.2=/0", "t4:1.3=tcp/1400", "use t4")
}

func TestReplyIsNoLargerThanTheCopy(t *testing.T) {
	bt := newBindingTest(t)
	m := &regmsg.Request{HomeAddress: homeAddress, HomeAgent: homeAgent, Lifetime: 1, Identification: 1, PaddedSize: 60000}
	if err := bt.b.Receive(bt.now, m, bt.arrival("u1", 400)); err != nil {
		t.Fatal(err)
	}
	bt.want("padded as the copy was", "u1:0.1=udp/400", "use u1?")
}

func TestDeregistrationIsRefused(t *testing.T) {
	bt := newBindingTest(t)
	if err := bt.copy(1, "u1", 1400, func(m *regmsg.Request) { m.Lifetime = 0 }); err != nil {
		t.Fatal(err)
	}
	bt.want("a reply, and no more", "u1:1.0=/0")
	if bt.last[1].Code != regmsg.CodeUnspecified {
		t.Errorf("reply is %+v", bt.last[1])
	}
}

func TestBindingIsBounded(t *testing.T) {
	bt := newBindingTest(t)
	for i := range 10 * maxBound {
		bt.copies(1+i/(2*maxBound), fmt.Sprintf("u%d", i+1))
	}
	bt.collect()
	if n := len(bt.b.carriers); n > maxBound {
		t.Errorf("%d carriers", n)
	}
	closed := strings.Count(strings.Join(bt.log, " "), "close")
	if closed != 10*maxBound-len(bt.b.carriers) || bt.b.carriers[bt.b.Current().ID] == nil {
		t.Errorf("%d closed, %d left, current %+v", closed, len(bt.b.carriers), bt.b.Current())
	}
}

func TestRandomSourceFails(t *testing.T) {
	b := NewBinding(BindingConfig{HomeAddress: homeAddress, HomeAgent: homeAgent, Random: bytes.NewReader(nil)})
	bt := &bindingTest{t: t, b: b, now: epoch, last: make(map[CarrierID]*regmsg.Reply), name: make(map[CarrierID]string)}
	if err := bt.copy(1, "u1", 1400, nil); err == nil {
		t.Error("a cookie out of nothing")
	}
	bt.want("nothing came of it")
}
