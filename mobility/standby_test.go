package mobility

import (
	"errors"
	"testing"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

// TestStandby registers a second network, loses the first, and comes back to it.
func TestStandby(t *testing.T) {
	there := []string{"wlan0"}
	received := regmsg.ReceiveState{SPI: 7, Highest: 99}
	rt := newRegistrarTest(t, func(c *RegistrarConfig) {
		c.Interfaces = func() []string { return there }
		c.ReceiveState = func() regmsg.ReceiveState { return received }
	}, udp, tcp)
	rt.settled(TriggerConnect, udp)
	first := rt.r.Current().ID
	rt.after(time.Minute)
	rt.log = nil
	rt.want("one network has no standby")

	there = []string{"wlan0", "wwan0"}
	rt.r.Networks(rt.now)
	rt.after(0)
	rt.want("all is tried on the second", "open udp", "open tcp", "short udp", "padded udp", "short tcp", "padded tcp")
	if m := rt.request[rt.last[udp]]; !m.Probe {
		t.Error("the server is to move nothing")
	}
	rt.mustReply(udp, nil)
	rt.mustReply(tcp, nil)
	rt.after(5 * time.Second)
	rt.want("the best stays ready", "confirmation udp", "close tcp")
	if c := rt.r.Current(); c.ID != first || rt.r.Standby() != rt.last[udp] {
		t.Errorf("current %+v, standby %d", c, rt.r.Standby())
	}

	rt.r.Start(rt.now, TriggerAsked)
	rt.drain()
	rt.mustReply(udp, nil)
	rt.mustReply(tcp, nil)
	standby := rt.r.Standby()
	rt.after(3 * time.Second)
	if rt.r.Last().Trigger != TriggerStandby || len(rt.r.Last().Copies) != 1 || rt.r.Standby() != standby {
		t.Errorf("not registered anew by the carrier that is there: %+v", rt.r.Last())
	}
	rt.last[udp] = standby
	rt.mustReply(udp, nil)
	rt.after(10 * time.Second)
	rt.log = nil

	there = []string{"wwan0"}
	rt.r.Start(rt.now, TriggerAddress)
	rt.want("data leaves by it at once, and the server is told", "use udp", "decision udp")
	if m := rt.request[standby]; m.Probe || m.Received.Highest != received.Highest {
		t.Errorf("the server is to send again what was lost: %+v", m)
	}
	rt.mustReply(udp, func(m *regmsg.Reply) { m.Decision, m.Here, m.Up, m.Down, m.Revision = 1, true, udp, udp, 1 })
	rt.want("the reply says what the server has", "confirmation udp", "use udp")
	if c, l := rt.r.Current(), rt.r.Last(); c.ID != standby || l.Trigger != TriggerAddress || l.Selected != udp {
		t.Errorf("current %+v, last %+v", c, l)
	}

	// The first comes back as the one that the routes prefer; a standby there
	// takes the data after a while.
	there = []string{"wlan0", "wwan0"}
	rt.r.Networks(rt.now)
	rt.after(2 * time.Second)
	rt.mustReply(udp, nil)
	rt.after(firstClimb - 3*time.Second)
	if c := rt.r.Current(); c.ID != standby {
		t.Errorf("too early: %+v", c)
	}
	rt.after(time.Second)
	if c := rt.r.Current(); c.ID != rt.last[udp] || rt.r.Last().Trigger != TriggerClimb {
		t.Errorf("data has not come back: %+v, %+v", c, rt.r.Last())
	}
}

// TestStandbyPreferred has the routes prefer the second network while the first is
// still there: what is under way by that arrives, and must not come twice.
func TestStandbyPreferred(t *testing.T) {
	there := []string{"wlan0", "wwan0"}
	rt := newRegistrarTest(t, func(c *RegistrarConfig) {
		c.Interfaces = func() []string { return there }
		c.ReceiveState = func() regmsg.ReceiveState { return regmsg.ReceiveState{SPI: 7, Highest: 99} }
	}, udp, tcp)
	rt.settled(TriggerConnect, udp)
	rt.after(3 * time.Second)
	rt.mustReply(udp, nil)
	rt.after(3 * time.Second)
	standby := rt.r.Standby()
	rt.log = nil
	there = []string{"wwan0", "wlan0"}
	rt.r.Start(rt.now, TriggerAddress)
	rt.want("data leaves by it at once, and the server is told", "use udp", "decision udp")
	if m := rt.request[standby]; m.Received.SPI != 0 || !rt.r.Last().Overlap {
		t.Errorf("the server is to send again what arrives: %+v", m)
	}
}

// TestStandbyLost has a standby whose carrier ends, and one whose network does.
func TestStandbyLost(t *testing.T) {
	there := []string{"wlan0", "wwan0"}
	rt := newRegistrarTest(t, func(c *RegistrarConfig) { c.Interfaces = func() []string { return there } }, udp, tcp)
	rt.settled(TriggerConnect, udp)
	used := rt.r.Current().ID
	ready := func() {
		t.Helper()
		rt.after(3 * time.Second)
		rt.mustReply(udp, nil)
		rt.after(3 * time.Second)
		if rt.r.Standby() == 0 || rt.r.Standby() == used {
			t.Fatalf("no standby: %+v", rt.r.Last())
		}
	}
	ready()
	lost := rt.r.Standby()
	delete(rt.open, lost)
	rt.r.Closed(rt.now, lost, errors.New("reset"))
	ready()
	there = there[:1]
	rt.r.Networks(rt.now)
	rt.drain()
	if rt.r.Standby() != 0 || len(rt.open) != 1 {
		t.Errorf("standby %d, carriers %v", rt.r.Standby(), rt.open)
	}
	rt.r.Closed(rt.now, used, errors.New("reset"))
	rt.drain()
	if rt.r.Last().Trigger != TriggerSocket || len(rt.r.Last().Copies) != 2 {
		t.Errorf("no registration over everything: %+v", rt.r.Last())
	}
}

// TestNoStandbyOnTheSameNetwork moves to a network while no interface is known,
// as happens between two of them: its interface, once known, is no second one.
func TestNoStandbyOnTheSameNetwork(t *testing.T) {
	there := []string{"wlan0"}
	rt := newRegistrarTest(t, func(c *RegistrarConfig) {
		c.Interfaces = func() []string { return there }
	}, udp, tcp)
	rt.settled(TriggerConnect, udp)
	there = nil
	rt.settled(TriggerAddress, udp)
	there = []string{"wwan0"}
	rt.r.Networks(rt.now)
	rt.log = nil
	rt.after(time.Minute)
	rt.want("the only network has no standby")

	// Nor is there one while the interface in use is gone.
	rt.settled(TriggerAddress, udp)
	there = []string{"eth0"}
	rt.r.Networks(rt.now)
	rt.log = nil
	rt.after(time.Minute)
	rt.want("what replaces a network is no second one")
}
