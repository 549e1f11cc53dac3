package mobility

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/godwit-net/godwit/mobility/regmsg"
	"github.com/godwit-net/godwit/transports"
)

// A fate is what a network does to one encapsulation.
type fate struct {
	opens    bool // a stream can be opened
	up, down bool // packets pass
	large    bool // and those of data's size
	delay    time.Duration
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// A world joins a Registrar and a Binding by a network that loses, delays,
// reorders and duplicates.
type world struct {
	t     *rapid.T
	rnd   *rand.Rand
	now   time.Time
	queue events
	seq   int

	client *Registrar
	server *Binding
	fates  map[transports.Name]fate
	loss   float64 // of datagrams

	network  int // grows with each move
	carriers map[CarrierID]*modelCarrier
	byServer map[CarrierID]*modelCarrier
	serverID CarrierID
	seen     []*regmsg.Request // all that was ever sent
}

type modelCarrier struct {
	id, server CarrierID // server: 0 until the server heard of it
	name       transports.Name
	network    int
	open       bool
	large      bool // a padded reply has come by it
	port       uint16
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now.Add(d), w.seq, do})
}

// run lets everything happen until then.
func (w *world) run(until time.Time) {
	for n := 0; ; n++ {
		if n > 200_000 {
			w.t.Fatal("too much happens")
		}
		w.drain()
		next := until
		for _, t := range []time.Time{w.client.NextTimeout(), w.server.NextTimeout()} {
			if !t.IsZero() && t.Before(next) {
				next = t
			}
		}
		if len(w.queue) > 0 && !w.queue[0].at.After(next) {
			e := heap.Pop(&w.queue).(event)
			w.now = maxTime(w.now, e.at)
			e.do()
			continue
		}
		w.now = maxTime(w.now, next)
		if !w.now.Before(until) {
			return
		}
		w.client.Advance(w.now)
		w.server.Advance(w.now)
	}
}

func (w *world) drain() {
	for again := true; again; {
		again = false
		for _, a := range w.client.Actions() {
			again = true
			w.clientAction(a)
		}
		for _, a := range w.server.Actions() {
			again = true
			w.serverAction(a)
		}
	}
	if len(w.client.carriers) > 8 || len(w.server.carriers) > maxBound || len(w.client.history) > HistorySize {
		w.t.Fatalf("client has %d carriers, server %d", len(w.client.carriers), len(w.server.carriers))
	}
}

func (w *world) clientAction(a Action) {
	switch a := a.(type) {
	case Open:
		c := &modelCarrier{id: a.ID, name: a.Name, network: w.network, port: uint16(1000 + a.ID)}
		w.carriers[a.ID] = c
		f := w.fates[a.Name]
		wait := f.delay // a handshake
		if !reliable(a.Name) {
			wait = 0
		}
		w.after(wait, func() {
			switch {
			case w.carriers[c.id] != c:
			case reliable(c.name) && (!f.opens || c.network != w.network):
				delete(w.carriers, c.id)
				w.client.OpenFailed(w.now, c.id, fmt.Errorf("no route"))
			default:
				c.open = true
				d := transports.Description{Encapsulation: c.name, Source: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(c.network), 2}), c.port),
					Destination: netip.MustParseAddrPort("198.51.100.1:443")}
				w.client.Opened(w.now, c.id, d)
				w.client.Ready(w.now, c.id)
			}
		})
	case Send:
		c := w.carriers[a.ID]
		if c == nil || !c.open {
			w.t.Fatalf("client sends by carrier %d, which is not open", a.ID)
		}
		m := a.Message.(*regmsg.Request)
		if b, err := m.AppendBinary(nil); err != nil || len(b) > shortReply {
			w.t.Fatalf("%v: %d bytes, %v", m, len(b), err)
		}
		w.seen = append(w.seen, m)
		w.transmit(c, w.fates[c.name].up, a.PadTo, func() { w.serverReceive(c, m, max(a.PadTo, 300)) })
	case Use:
		c := w.carriers[a.ID]
		if from := w.carriers[a.From]; c == nil || !c.large && !a.Provisional && (from == nil || !from.large) {
			w.t.Fatalf("client uses carrier %d, which has proven nothing", a.ID)
		}
	case Close:
		c := w.carriers[a.ID]
		if c == nil {
			w.t.Fatalf("client closes carrier %d again", a.ID)
		}
		delete(w.carriers, a.ID)
		if reliable(c.name) && c.server != 0 {
			w.after(w.fates[c.name].delay, func() { w.server.Closed(w.now, c.server) })
		}
	}
}

func (w *world) serverAction(a Action) {
	switch a := a.(type) {
	case Send:
		c := w.byServer[a.ID]
		m := a.Message.(*regmsg.Reply)
		if _, err := m.AppendBinary(nil); err != nil {
			w.t.Fatal(err)
		}
		w.transmit(c, w.fates[c.name].down, a.PadTo, func() {
			if w.carriers[c.id] != c {
				return
			}
			if err := w.client.Receive(w.now, m, c.id); err == nil && a.PadTo > 0 {
				c.large = true
			}
		})
	case Use:
		if w.server.carriers[a.ID] == nil {
			w.t.Fatalf("server uses carrier %d, which it does not know", a.ID)
		}
	case Close:
		c := w.byServer[a.ID]
		c.server = 0
		delete(w.byServer, a.ID)
		if reliable(c.name) {
			w.after(w.fates[c.name].delay, func() {
				if w.carriers[c.id] == c {
					delete(w.carriers, c.id)
					w.client.Closed(w.now, c.id, fmt.Errorf("end of stream"))
				}
			})
		}
	}
}

// transmit carries one packet, or not.
func (w *world) transmit(c *modelCarrier, passes bool, padTo int, arrive func()) {
	f := w.fates[c.name]
	if !passes || c.network != w.network || padTo > 0 && !f.large {
		return
	}
	if reliable(c.name) {
		w.after(f.delay, arrive)
		return
	}
	for n := 1; n > 0; n-- {
		if w.rnd.Float64() < w.loss {
			continue
		}
		if w.rnd.Float64() < 0.1 {
			n++
		}
		w.after(f.delay+time.Duration(w.rnd.Int64N(int64(20*ms))), arrive)
	}
}

func (w *world) serverReceive(c *modelCarrier, m *regmsg.Request, size int) {
	if c.server == 0 {
		if reliable(c.name) && w.carriers[c.id] != c {
			return // closed meanwhile
		}
		w.serverID++
		c.server = w.serverID
		w.byServer[c.server] = c
	}
	seen := m.Sent
	seen.Source = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), c.port)
	_ = w.server.Receive(w.now, m, Arrival{Carrier: c.server, Seen: seen, Bytes: size, Validated: reliable(c.name)})
}

// replay sends what was captured from another address; nothing may change.
func (w *world) replay() {
	w.drain()
	current := w.server.reg.identification
	for _, m := range w.seen {
		if m.Identification >= current {
			continue
		}
		before, sent := w.server.Current(), m.Sent
		sent.Source = netip.MustParseAddrPort("192.0.2.66:666")
		if err := w.server.Receive(w.now, m, Arrival{Carrier: 1 << 40, Seen: sent, Bytes: 1400}); err == nil {
			w.t.Fatalf("replay of %v is accepted", m)
		}
		if as := w.server.Actions(); len(as) > 0 || w.server.Current() != before {
			w.t.Fatalf("replay of %v does %v", m, as)
		}
	}
}

// reach gives a carrier by which the server has not been heard, if there is one.
func (w *world) reach(n transports.Name, local netip.Addr, to netip.AddrPort) (CarrierID, transports.Description, bool) {
	for _, c := range w.carriers {
		if c.name == n && c.open && c.server == 0 && c.port == to.Port() {
			w.serverID++
			c.server = w.serverID
			w.byServer[c.server] = c
			return c.server, transports.Description{Encapsulation: udp, Source: netip.AddrPortFrom(local, 443), Destination: to}, true
		}
	}
	return 0, transports.Description{}, false
}

func drawFates(t *rapid.T, label string) map[transports.Name]fate {
	fs := make(map[transports.Name]fate)
	for _, n := range []transports.Name{udp, udp2, tcp, web} {
		kind := rapid.SampledFrom([]string{"good", "good", "blocked", "up only", "down only", "small only"}).Draw(t, label+" "+string(n))
		f := fate{opens: true, up: true, down: true, large: true, delay: time.Duration(rapid.IntRange(1, 300).Draw(t, label+" delay")) * ms}
		switch kind {
		case "blocked":
			f.opens, f.up, f.down = false, false, false
		case "up only":
			f.down = false
		case "down only":
			f.up = false
		case "small only":
			f.large = false
		}
		if reliable(n) && kind != "good" {
			f.opens, f.up, f.down = false, false, false
		}
		fs[n] = f
	}
	return fs
}

func TestBothEndsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		orders := [][]transports.Name{{udp, udp2, tcp, web}, {web, tcp, udp2, udp}, {tcp, udp, web, udp2}}
		var w *world
		w = &world{
			t: t, now: epoch, rnd: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
			client: NewRegistrar(RegistrarConfig{
				HomeAddress: homeAddress, HomeAgent: homeAgent, Identification: 7,
				Encapsulations: rapid.SampledFrom(orders).Draw(t, "client's order"),
				ClientDecides:  rapid.Bool().Draw(t, "client decides"),
			}),
			server: NewBinding(BindingConfig{HomeAddress: homeAddress, HomeAgent: homeAgent, Reach: func(n transports.Name, local netip.Addr, to netip.AddrPort) (CarrierID, transports.Description, bool) {
				return w.reach(n, local, to)
			},
				Preference: rapid.SampledFrom(orders).Draw(t, "server's order")}),
			loss:     float64(rapid.IntRange(0, 40).Draw(t, "loss")) / 100,
			carriers: make(map[CarrierID]*modelCarrier), byServer: make(map[CarrierID]*modelCarrier),
		}
		triggers := []Trigger{TriggerAddress, TriggerSilence, TriggerSocket, TriggerClimb, TriggerAsked}
		for i := range rapid.IntRange(0, 6).Draw(t, "moves") {
			w.fates = drawFates(t, fmt.Sprint("move ", i))
			if rapid.Bool().Draw(t, "new network") {
				w.network++
			}
			w.client.Start(w.now, rapid.SampledFrom(triggers).Draw(t, "trigger"))
			w.run(w.now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "wait")) * ms))
			w.replay()
		}

		// The last network stays as it is, and something works there.
		w.fates = drawFates(t, "last move")
		works := rapid.SampledFrom([]transports.Name{udp, udp2, tcp, web}).Draw(t, "works")
		w.fates[works] = fate{opens: true, up: true, down: true, large: true, delay: 30 * ms}
		w.network++
		w.client.Start(w.now, TriggerAddress)
		w.run(w.now.Add(2 * time.Minute))
		for n := 0; !w.client.round.rec.Done; n++ {
			if n > 60 {
				t.Fatalf("the round does not end: %+v", *w.client.round)
			}
			w.run(w.now.Add(time.Second))
		}
		p, q := w.client.Current(), w.server.Current()
		c := w.carriers[p.ID]
		if p.ID == 0 || w.client.Registering() {
			t.Fatalf("client has no path: %+v", w.client.History())
		}
		if c == nil || c.server != q.ID || c.network != w.network {
			t.Fatalf("client uses %v (%+v), server %v\n%+v", p, c, q, w.client.History()[len(w.client.History())-1])
		}
		if f := w.fates[c.name]; !f.up || !f.down || !f.large {
			t.Fatalf("they agree on %s, where it is %+v", c.name, f)
		}
		if !w.server.carriers[q.ID].validated {
			t.Fatalf("the path is not validated: %+v", w.server.carriers[q.ID])
		}
		if n := len(w.carriers); n != 1 {
			t.Fatalf("client keeps %d carriers", n)
		}
		for i, rec := range w.client.History() {
			if !rec.Done {
				t.Fatalf("record %d is not done: %+v", i, rec)
			}
		}
		w.replay()
	})
}
