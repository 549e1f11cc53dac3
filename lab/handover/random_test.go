//go:build virtualtime

package handover

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
	"github.com/godwit-net/godwit/mobility/link"
)

var (
	scenarioSeed  = flag.Uint64("seed", 0, "play only the scenario with this seed, and say what happens in it")
	scenarioCount = flag.Uint64("scenarios", 60, "how many random scenarios to play")
)

// TestRandomScenarios plays scenarios that follow from a seed: everything that
// networks do, in any order. Whatever it is, every stream has to deliver every
// byte in order, every registration has to end, nothing may be sent to an
// address that is not proven beyond three times what came from there, and what
// is kept has to stay within its bounds. A bubble does not end while a
// goroutine is left.
func TestRandomScenarios(t *testing.T) {
	if *scenarioSeed != 0 {
		play(t, *scenarioSeed, true)
		return
	}
	for seed := uint64(1); seed <= *scenarioCount; seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { play(t, seed, false) })
		if !ok {
			t.Errorf("scenario %d failed; play it alone with -run TestRandomScenarios -args -seed %d", seed, seed)
		}
	}
}

// A scene is one random scenario under way.
type scene struct {
	t     *testing.T
	w     *world
	m     *mobile
	rand  *rand.Rand
	r     time.Duration
	start time.Time
	tell  bool
	nets  []*lab.Network
	at    map[string]*lab.Network // by interface
}

func play(t *testing.T, seed uint64, tell bool) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, tell: tell, rand: rand.New(rand.NewPCG(seed, 1)), start: time.Now(), at: make(map[string]*lab.Network)}
		s.r = time.Duration(10+s.rand.IntN(290)) * time.Millisecond
		s.w = newSeededWorld(t, seed, s.r)
		defer s.w.close()
		defer wallBack()
		s.nets = []*lab.Network{s.w.wifi, s.w.cell}
		for _, n := range s.nets {
			n.SetLinks(s.link(), s.link())
		}
		s.m = s.w.join("laptop", 10)
		s.at["if0"] = s.w.wifi
		proven := s.w.watchValidation()
		<-s.m.client.Ready()

		var flows []*flow
		var conns []net.Conn
		for i := range 1 + s.rand.IntN(3) {
			near, far := s.m.pair(uint16(7 + i))
			conns = append(conns, near, far)
			p := pace{size: 200 + s.rand.IntN(1800), every: time.Duration(5+s.rand.IntN(95)) * time.Millisecond}
			if s.rand.IntN(3) > 0 {
				flows = append(flows, newFlow(t, fmt.Sprintf("up %d", i), near, far, p))
			}
			flows = append(flows, newFlow(t, fmt.Sprintf("down %d", i), far, near, p))
		}
		for range 3 + s.rand.IntN(8) {
			time.Sleep(time.Duration(s.rand.IntN(6000)) * time.Millisecond)
			s.event()
			s.bounded()
		}
		s.heal()
		time.Sleep(90 * time.Second)
		s.bounded()
		for _, f := range flows {
			f.end()
		}
		for _, c := range conns {
			c.Close()
		}
		time.Sleep(30 * time.Second)
		st := s.m.client.Status()
		if st.State != "connected" {
			t.Errorf("the client is %s at the end: %s", st.State, st.LastError)
		}
		for _, r := range st.Registrations {
			if !r.Done {
				t.Errorf("registration %d by %s, begun %v after the start, has not ended", r.Number, r.Trigger, r.Started.Sub(s.start))
			}
		}
		proven()
	})
}

func (s *scene) say(format string, args ...any) {
	if s.tell {
		s.t.Logf("%9.3f s: %s", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
	}
}

// link draws one direction of a network.
func (s *scene) link() lab.Link {
	l := lab.Link{Delay: s.r/4 + time.Duration(s.rand.Int64N(int64(s.r/2)))}
	part := func(most float64) float64 {
		if s.rand.IntN(2) == 0 {
			return 0
		}
		return most * s.rand.Float64()
	}
	l.Loss, l.Duplicate, l.Reorder = part(0.03), part(0.02), part(0.02)
	l.Jitter = time.Duration(part(0.2) * float64(s.r))
	if s.rand.IntN(2) == 0 {
		l.Rate = (2 + s.rand.IntN(48)) * 1e6 / 8
	}
	return l
}

func (s *scene) other(n *lab.Network) *lab.Network {
	if n == s.w.wifi {
		return s.w.cell
	}
	return s.w.wifi
}

// event lets something happen.
func (s *scene) event() {
	n := s.nets[s.rand.IntN(len(s.nets))]
	switch s.rand.IntN(11) {
	case 0, 1:
		if at := s.at["if0"]; at != nil {
			s.at["if0"] = s.other(at)
			s.say("if0 moves to %s", s.at["if0"].Name())
			s.m.host.Move("if0", s.at["if0"])
		}
	case 2:
		s.outage()
	case 3, 4:
		fs := []struct {
			name string
			f    lab.Firewall
		}{
			{"only TCP", lab.OnlyTCP}, {"only TLS", lab.OnlyTLS443}, {"no TCP", lab.DropTCP}, {"everything", nil},
			{"no UDP out", lab.Outbound(lab.DropUDP)}, {"no UDP in", lab.Inbound(lab.DropUDP)}, {"no packets above 600 bytes of UDP", func(p lab.Packet) lab.Verdict {
				if p.Proto == lab.UDP {
					return lab.DropLarger(600)(p)
				}
				return lab.Pass
			}},
		}
		f := fs[s.rand.IntN(len(fs))]
		s.say("%s passes: %s", n.Name(), f.name)
		n.SetFirewall(f.f)
	case 5:
		d := time.Duration(s.rand.IntN(8000)) * time.Millisecond
		s.say("%s swallows everything for %v", n.Name(), d)
		n.SetFirewall(lab.DropAll)
		time.Sleep(d)
		n.SetFirewall(nil)
		s.say("%s passes everything", n.Name())
	case 6:
		s.say("the links of %s change", n.Name())
		n.SetLinks(s.link(), s.link())
	case 7:
		change := s.rand.IntN(2) == 0
		s.say("the NAT of %s forgets all; changes ports: %v", n.Name(), change)
		s.forget(n, change)
	case 8:
		s.second()
	case 9:
		s.suspend()
	case 10:
		d := time.Duration(s.rand.Int64N(int64(48*time.Hour))) - 24*time.Hour
		s.say("somebody sets the clock by %v", d)
		stepWall(d)
	}
}

// suspend has the machine asleep: nothing leaves it and nothing is taken, and
// nobody tells it. Meanwhile NATs may forget, and the lid may be opened elsewhere.
// Once in a while only the clock shows that time has passed: the process did not
// live through it, as on most systems.
func (s *scene) suspend() {
	d := time.Duration(s.rand.IntN(30000)) * time.Millisecond
	if s.rand.IntN(5) == 0 {
		d = time.Duration(1+s.rand.IntN(20)) * time.Minute
	}
	forget, elsewhere, still := s.rand.IntN(2) == 0, s.rand.IntN(3) == 0, s.rand.IntN(2) == 0
	s.say("the machine sleeps for %v; NATs forget: %v, somewhere else: %v, its time stands still: %v", d, forget, elsewhere, still)
	if still {
		stepWall(d)
	} else {
		for _, n := range s.nets {
			n.SetFirewall(lab.DropAll)
		}
		time.Sleep(d)
	}
	for _, n := range s.nets {
		n.SetFirewall(nil)
		if forget {
			s.forget(n, s.rand.IntN(2) == 0)
		}
	}
	if at := s.at["if0"]; at != nil && elsewhere {
		s.at["if0"] = s.other(at)
		s.m.host.Move("if0", s.at["if0"])
	}
	s.say("the machine wakes up")
	s.m.resumed <- struct{}{}
}

// forget has a network's NAT lose all mappings.
func (s *scene) forget(n *lab.Network, changePort bool) {
	out := "203.0.113.1"
	if n == s.w.cell {
		out = "203.0.113.2"
	}
	n.SetNAT(&lab.NAT{Outside: lab.Addrs(out), ChangePort: changePort})
}

// outage has no network for a while, as when the machine is asleep, too.
func (s *scene) outage() {
	for _, name := range []string{"if0", "if1"} {
		if s.at[name] != nil {
			s.m.host.Detach(name)
			s.at[name] = nil
		}
	}
	d := time.Duration(s.rand.IntN(20000)) * time.Millisecond
	if s.rand.IntN(10) == 0 {
		d = time.Duration(1+s.rand.IntN(20)) * time.Minute
	}
	s.say("no network for %v", d)
	time.Sleep(d)
	s.at["if0"] = s.nets[s.rand.IntN(len(s.nets))]
	s.say("if0 is in %s", s.at["if0"].Name())
	s.m.host.Attach("if0", s.at["if0"])
}

// second lets a second network come, go, or be preferred.
func (s *scene) second() {
	switch {
	case s.at["if1"] == nil:
		s.at["if1"] = s.nets[s.rand.IntN(len(s.nets))]
		s.say("if1 is in %s", s.at["if1"].Name())
		s.m.host.Attach("if1", s.at["if1"])
	case s.rand.IntN(2) == 0:
		s.say("if1 goes")
		s.m.host.Detach("if1")
		s.at["if1"] = nil
	default:
		s.say("if1 is preferred")
		s.m.host.Prefer("if1")
	}
}

// heal makes the networks good again.
func (s *scene) heal() {
	s.say("all is well again")
	for _, n := range s.nets {
		n.SetFirewall(nil)
		n.SetLink(lab.Link{Delay: s.r / 2})
	}
	if s.at["if0"] == nil {
		s.m.host.Attach("if0", s.w.wifi)
	}
}

// bounded looks at what both ends keep.
func (s *scene) bounded() {
	const most = 64 << 10 // a packet may be on its way beyond the bound
	check := func(who string, waiting, kept int) {
		if waiting > link.DefaultQueueBytes+most || kept > link.DefaultFlightBytes+most {
			s.t.Errorf("%s has %d bytes waiting and keeps %d", who, waiting, kept)
		}
	}
	c := s.m.client.Status()
	check("client", c.BytesWaiting, c.BytesKept)
	for _, c := range s.w.server.Status().Clients {
		check("server", c.BytesWaiting, c.BytesKept)
	}
}

// unproven is how many bytes beyond three times what came from an address may
// be sent there before it can have been proven. It should be 0: a short reply is
// larger than three times a short request, and goes out all the same when the
// padded copy was lost.
const unproven = 640

// watchValidation counts what the server sends by UDP to each address, and what
// comes from there, until a packet arrives that its sender can have sent with
// knowledge of what the server sent to that very address. Before that nothing
// can have been proven, and three times what came in is the most (RFC 9000,
// Section 8.1). The function that it gives reports what was wrong.
func (w *world) watchValidation() (report func()) {
	type address struct {
		in, out, most int
		heardAt       time.Time // when something that was sent there was first delivered
		proven        bool
	}
	addresses := make(map[netip.AddrPort]*address)
	to := make(map[uint64]*address)    // packets of the server, by ID
	left := make(map[uint64]time.Time) // packets of others
	get := func(a netip.AddrPort) *address {
		if addresses[a] == nil {
			addresses[a] = new(address)
		}
		return addresses[a]
	}
	server := w.host.Name()
	stop := w.in.Trace(func(e lab.Event) {
		if e.Proto != lab.UDP {
			return
		}
		switch {
		case e.Fate == lab.Sent && e.Where == server:
			a := get(e.Dst)
			to[e.ID] = a
			a.out += e.Size
			if !a.proven {
				a.most = max(a.most, a.out-3*a.in)
			}
		case e.Fate == lab.Sent:
			left[e.ID] = e.Time
		case e.Fate == lab.Delivered && e.Where == server:
			a := get(e.Src)
			a.in += e.Size
			if at, known := left[e.ID]; known && !a.heardAt.IsZero() && !at.Before(a.heardAt) {
				a.proven = true
			}
		case e.Fate == lab.Delivered:
			if a := to[e.ID]; a != nil && a.heardAt.IsZero() {
				a.heardAt = e.Time
			}
			delete(to, e.ID)
		}
	})
	return func() {
		stop()
		for at, a := range addresses {
			if a.most > unproven {
				w.t.Errorf("%d bytes more than three times what came in were sent to %v, which was not proven", a.most, at)
			}
		}
	}
}
