package mobility

import (
	"testing"
	"time"

	"github.com/godwit-net/godwit/transports"
)

func TestForce(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp, web)
	rt.settled(TriggerConnect, udp)
	rt.r.Force(rt.now, tcp)
	rt.want("only that one is registered, and data stays", "open tcp", "short tcp", "padded tcp")
	if rt.r.Current().Name != udp || rt.r.Forced() != tcp {
		t.Errorf("current is %v, forced %q", rt.r.Current(), rt.r.Forced())
	}
	rt.after(40 * ms)
	rt.mustReply(tcp, nil)
	rt.want("the answer moves the data", "use tcp")
	rt.after(time.Hour)
	rt.want("what is not forced is closed, and nothing better is looked for", "close udp")

	rt.r.Start(rt.now, TriggerAddress)
	rt.want("a move keeps to it", "open tcp", "short tcp", "padded tcp")
	rt.after(40 * ms)
	rt.mustReply(tcp, nil)
	rt.after(time.Minute)
	rt.log = nil

	rt.r.Force(rt.now, tcp)
	rt.want("once more changes nothing")
	rt.r.Force(rt.now, "pigeon")
	rt.want("nor does what is not there")
	rt.r.Force(rt.now, "")
	rt.want("all are tried again", "open udp", "open tcp", "open websocket",
		"short udp", "padded udp", "short tcp", "padded tcp", "short websocket", "padded websocket")
	rt.after(40 * ms)
	rt.mustReply(udp, nil)
	rt.want("and the best one is used", "confirmation udp", "use udp")
}

// Data waits when nothing answers by what is forced, and goes on by it at once when
// something does.
func TestForceWhatDoesNotPass(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	rt.settled(TriggerConnect, udp)
	rt.r.Force(rt.now, tcp)
	rt.drain()
	rt.after(defaultSettleTime - ms)
	if rt.r.Current().Name != udp {
		t.Fatalf("data has left %v already", rt.r.Current())
	}
	rt.log = nil
	rt.after(ms)
	if rt.r.Current().ID != 0 || !rt.r.Registering() {
		t.Fatalf("data is still on %v", rt.r.Current())
	}
	rt.want("data waits for a new attempt", "close udp", "close tcp", "open tcp", "short tcp", "padded tcp")
	rt.after(time.Minute)
	for id, name := range rt.open {
		if name != tcp {
			t.Errorf("carrier %d is %s", id, name)
		}
	}
	if q := rt.request[rt.last[tcp]]; q == nil {
		t.Error("nothing is asked any more")
	}
	rt.mustReply(tcp, nil)
	if rt.r.Current().Name != tcp || rt.r.Registering() {
		t.Errorf("after an answer: %v", rt.r.Current())
	}
}

// A late answer by another encapsulation than the forced one selects nothing.
func TestForceInTheMidstOfARegistration(t *testing.T) {
	rt := newRegistrarTest(t, nil, udp, tcp)
	for range RegistrationBurst + 1 { // the pace is used up: the next has to wait
		rt.r.Start(rt.now, TriggerAddress)
		rt.drain()
	}
	late := rt.last[udp]
	rt.r.Force(rt.now, tcp)
	rt.log = nil
	if rt.request[late] != nil {
		_ = rt.reply(udp, nil)
	}
	rt.drain()
	if rt.r.Current().Name == transports.UDP {
		t.Error("data leaves by udp, and tcp is forced")
	}
	rt.after(time.Second)
	rt.mustReply(tcp, nil)
	if rt.r.Current().Name != tcp {
		t.Errorf("current is %v", rt.r.Current())
	}
}
