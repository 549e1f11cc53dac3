package mobility

import (
	"errors"
	"testing"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// ready tells that the last carriers of these names take data.
func (rt *registrarTest) ready(name string) {
	rt.t.Helper()
	for n, id := range rt.last {
		if string(n) == name {
			rt.r.Ready(rt.now, id)
			rt.drain()
		}
	}
}

// provisionalTest has a client lose its path by UDP and start over.
func provisionalTest(t *testing.T, trigger Trigger, usable bool) *registrarTest {
	rt := newRegistrarTest(t, func(c *RegistrarConfig) { c.Usable = func() bool { return usable } }, udp, tcp, web)
	rt.settled(TriggerConnect, udp)
	rt.r.Start(rt.now, trigger)
	rt.drain()
	rt.log = nil
	return rt
}

func TestDataWithTheRequest(t *testing.T) {
	for _, trigger := range []Trigger{TriggerAddress, TriggerSilence} {
		rt := provisionalTest(t, trigger, false)
		rt.ready("udp")
		rt.want("the first that is ready takes the data", "use udp")
		rt.ready("udp")
		rt.want("once")
		rt.after(40 * ms)
		rt.ready("tcp")
		rt.want("an answer by UDP may be just behind")
		rt.after(1 * ms)
		rt.mustReply(udp, nil)
		rt.want("it is", "confirmation udp", "use udp")
		rt.after(time.Second)
		rt.want("and nothing takes over")
	}
}

func TestStreamTakesOverFromSilentUDP(t *testing.T) {
	rt := provisionalTest(t, TriggerAddress, false)
	rt.ready("udp")
	began := rt.now
	rt.after(40 * ms)
	rt.ready("tcp")
	rt.log = nil
	next := rt.r.NextTimeout()
	if d := next.Sub(began); d < 41*ms || d > 44*ms {
		t.Errorf("the stream takes over after %v", d)
	}
	rt.r.Advance(next)
	as := rt.r.Actions()
	if len(as) != 1 || as[0] != (Use{ID: rt.last[tcp], Validated: true, Provisional: true, Since: began}) {
		t.Errorf("then %+v", as)
	}
	if c := rt.r.Current(); c.Name != udp || c.ID == rt.last[udp] {
		t.Errorf("nothing has answered, and current is %+v", c)
	}
	rt.now = next
	rt.ready("websocket")
	rt.want("a less preferred stream changes nothing")
	rt.mustReply(web, nil)
	rt.want("an answer does", "use websocket")
}

func TestProvisionalCarrierIsLost(t *testing.T) {
	rt := provisionalTest(t, TriggerAddress, false)
	rt.ready("tcp")
	rt.ready("websocket")
	rt.want("the first", "use tcp")
	rt.r.Closed(rt.now, rt.last[tcp], errors.New("reset"))
	rt.want("the next", "use websocket")
}

// TestSilentDatagramsGetNoMore: a stream that had taken over from datagrams is
// reset. They had their time to be answered, so data waits for an answer.
func TestSilentDatagramsGetNoMore(t *testing.T) {
	rt := provisionalTest(t, TriggerAddress, false)
	rt.ready("udp")
	rt.after(40 * ms)
	rt.ready("tcp")
	rt.want("UDP, at first", "use udp")
	rt.after(3 * ms)
	rt.want("then the stream", "use tcp")
	rt.r.Closed(rt.now, rt.last[tcp], errors.New("reset"))
	rt.drain()
	rt.want("and nothing after it")
	rt.after(40 * ms)
	rt.ready("websocket")
	rt.want("until another stream is ready", "use websocket")
}

func TestNoProvisionalCarrier(t *testing.T) {
	for _, tt := range []struct {
		name    string
		trigger Trigger
		usable  bool
	}{
		{"the old network is still there", TriggerAddress, true},
		{"the user asked", TriggerAsked, false},
	} {
		rt := provisionalTest(t, tt.trigger, tt.usable)
		rt.ready("udp")
		rt.after(40 * ms)
		rt.ready("tcp")
		rt.want(tt.name)
		rt.mustReply(tcp, nil)
		rt.want(tt.name+": the answer moves the data", "use tcp")
		rt.ready("websocket")
		rt.want(tt.name + ": too late")
	}
}

// TestRememberedStream comes back to a network where nothing but WebSocket
// passed: data does not wait for datagrams there, and yet all is tried.
func TestRememberedStream(t *testing.T) {
	rt := newRegistrarTest(t, func(c *RegistrarConfig) {
		c.Usable = func() bool { return false }
		c.Prefer = func() []transports.Name { return []transports.Name{web} }
	}, udp, tcp, web)
	rt.settled(TriggerConnect, udp)
	rt.log = nil
	rt.r.Start(rt.now, TriggerAddress)
	rt.drain()
	rt.want("the best first, none left out", "open websocket", "open udp", "open tcp",
		"short websocket", "padded websocket", "short udp", "padded udp", "short tcp", "padded tcp")
	rt.ready("udp")
	rt.want("better than nothing", "use udp")
	rt.ready("websocket")
	rt.want("what worked takes over at once", "use websocket")
	rt.ready("tcp")
	rt.want("and keeps the data")
	rt.mustReply(udp, nil)
	rt.want("an answer goes before all memory", "confirmation udp", "use udp")
}
