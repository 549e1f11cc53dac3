// Package pathmtu finds the largest packets that a path takes, by padded probes
// that the other end answers (Datagram Packetization Layer Path MTU Discovery,
// RFC 8899). No ICMP message is needed or heeded.
//
// A Search is a state machine without I/O: it takes the time and what became of
// probes, and gives back the probes to send and when it wants to be woken. Sizes are
// in bytes of what the encapsulation carries, an ESP packet, and multiples of 4.
//
// # Limitations
//
// "Packet too big" messages are not used, not even to shorten the search (RFC 8899,
// Section 4.6: they may be forged).
package pathmtu

import "time"

// A State is one of RFC 8899, Section 5.2. Its DISABLED is a path without a Search.
type State uint8

// The states.
const (
	Base      State = iota + 1 // whether the base size passes is not known yet
	Searching                  // it does; larger ones are tried
	Complete                   // the search has ended
	Failed                     // ERROR: packets pass, but none of the base size
)

// String gives the state's name as status shows it.
func (s State) String() string {
	switch s {
	case Base:
		return "base"
	case Searching:
		return "searching"
	case Complete:
		return "complete"
	case Failed:
		return "error"
	}
	return "disabled"
}

// Constants of RFC 8899, Section 5.1.
const (
	// BaseSize is what is sent before anything is known: BASE_PLPMTU.
	BaseSize = 1200
	// MinSize passes wherever IPv4 does, with UDP: MIN_PLPMTU, from the 576 bytes
	// of RFC 791, Section 3.1.
	MinSize = 576 - 20 - 8
	// MaxProbes of one size are lost until it is taken as too big: MAX_PROBES.
	MaxProbes = 3
	// RaiseAfter is how long a result stands until larger packets are tried again:
	// PMTU_RAISE_TIMER.
	RaiseAfter = 600 * time.Second
)

// Timing of our own.
const (
	// grain is how near the search comes to what the path takes, in bytes.
	grain = 12
	// minTimer is the least time for an answer beyond a round trip and a quarter: the
	// PROBE_TIMER follows the round trip, as answers come at once.
	minTimer = 25 * time.Millisecond
	// patience is what answers that left behind another may take longer.
	patience = 10 * time.Millisecond
	// againAfter is the pause after a suspicion that turned out wrong.
	againAfter = 250 * time.Millisecond
	// failedEvery is how soon the base size is tried again while it does not pass.
	failedEvery = 2 * time.Second
	// maxOut is how many probes are remembered.
	maxOut = 32
)

// common are the sizes of IP packets that networks take: Ethernet with tunnels,
// PPPoE and the like around it.
var common = []int{1280, 1340, 1380, 1400, 1420, 1440, 1454, 1472, 1480, 1492, 1500, 4352, 8500, 9000}

// usual is what most networks take, and is tried before others.
const usual = 1500

// A Config is what is known of a path.
type Config struct {
	Max     int // the largest packet that this end can send there
	Headers int // what the encapsulation adds, IP header included
	First   int // what the path took when it was last used; 0: unknown
}

// A Probe is a packet to be sent now, with this number in it. Size 0 stands for the
// smallest there is.
type Probe struct {
	ID   uint32
	Size int
}

// A Search is what is known and being found out about one path. It is not safe for
// concurrent use.
type Search struct {
	c     Config
	state State
	size  int // passes, by all that is known: PLPMTU
	high  int // does not pass; beyond Max at first
	rtt   time.Duration

	lastID uint32
	out    []out

	begun  bool      // the likeliest size was tried in the state Base
	waits  int       // how often nothing came back at all
	probed int       // PROBED_SIZE; 0: none
	count  int       // PROBE_COUNT
	small  bool      // one of the smallest was answered since the state began
	tried  int       // how many of firsts were tried
	at     time.Time // when something is due; zero: nothing is

	suspect suspicion
	settled time.Time // when a suspicion turned out wrong
}

// out is a probe that was sent.
type out struct {
	id   uint32
	size int
	at   time.Time
}

// A suspicion asks whether full packets are lost while others pass: a black hole,
// RFC 8899, Section 4.3. Pairs of a full packet and a small one behind it go out.
type suspicion struct {
	on     bool
	size   int
	first  uint32 // of the pairs' numbers
	pairs  int    // sent
	small  int    // answered, of the small ones
	next   time.Time
	decide time.Time // zero: not yet
}

// New begins to look at a path at start. What leaves before has the base size.
func New(start time.Time, c Config) *Search {
	c.Max = max(c.Max, BaseSize) &^ 3
	s := &Search{c: c}
	s.begin(start)
	return s
}

// begin enters the state Base.
func (s *Search) begin(now time.Time) {
	s.state, s.size, s.high = Base, BaseSize, s.c.Max+4
	s.probed, s.count, s.small, s.tried, s.begun = 0, 0, false, 0, false
	s.out, s.suspect = s.out[:0], suspicion{}
	s.at = now
}

// State is where the search is.
func (s *Search) State() State { return s.state }

// Size is the largest packet that may be sent now.
func (s *Search) Size() int { return s.size }

// PathMTU is the same with all headers, in bytes of an IP packet.
func (s *Search) PathMTU() int { return s.size + s.c.Headers }

// NextTimeout is when Advance wants to be called; zero: never.
func (s *Search) NextTimeout() time.Time {
	t := s.at
	for _, u := range []time.Time{s.suspect.next, s.suspect.decide} {
		if !u.IsZero() && (t.IsZero() || u.Before(t)) {
			t = u
		}
	}
	return t
}

func due(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

// Advance does what is due at now, where a round trip takes rtt, and gives the probes
// to send. Idle says that no data is on its way: then a result is not looked at again.
func (s *Search) Advance(now time.Time, rtt time.Duration, idle bool) (ps []Probe) {
	s.rtt = max(rtt, 0)
	ps = s.advanceSuspicion(now, ps)
	if !due(s.at, now) {
		return ps
	}
	s.at = time.Time{}
	if s.probed != 0 && s.count >= MaxProbes {
		s.failed(s.probed)
	}
	switch s.state {
	case Base:
		if idle && s.waits > 0 && s.count == 0 {
			s.at = now.Add(failedEvery)
			return ps
		}
		return s.advanceBase(now, ps)
	case Failed:
		s.at = now.Add(failedEvery)
		if idle {
			return ps
		}
		return append(ps, s.send(now, BaseSize))
	case Complete:
		if idle {
			s.at = now.Add(RaiseAfter)
			return ps
		}
		s.state, s.high, s.tried = Searching, s.c.Max+4, 0
		s.probed, s.count = 0, 0
	}
	return s.advanceSearch(now, ps)
}

// timer is the PROBE_TIMER: "If the PL has a path RTT estimate and timely
// acknowledgments the PROBE_TIMER can be derived from the PL RTT estimate."
// RFC 8899, Section 5.1.1
func (s *Search) timer() time.Duration { return s.rtt + s.rtt/4 + minTimer }

// advanceBase tries the likeliest size first, since an answer says that smaller ones
// pass, too, and then the base size.
func (s *Search) advanceBase(now time.Time, ps []Probe) []Probe {
	if s.count >= MaxProbes {
		if s.small {
			s.state, s.size = Failed, MinSize
			s.at = now.Add(failedEvery)
			return ps
		}
		// Nothing comes back at all, which tells nothing of sizes.
		s.count = 0
		s.at = now.Add(min(failedEvery<<s.waits, RaiseAfter))
		s.waits = min(s.waits+1, 10)
		return ps
	}
	if size := s.next(); size > 0 && !s.begun {
		s.begun = true
		s.at = now.Add(s.timer())
		return append(ps, s.send(now, size))
	}
	ps = append(ps, s.send(now, 0), s.send(now, BaseSize))
	s.count++
	s.at = now.Add(s.timer())
	return ps
}

func (s *Search) advanceSearch(now time.Time, ps []Probe) []Probe {
	if s.probed == 0 {
		if s.probed = s.next(); s.probed == 0 {
			s.state = Complete
			if s.size < s.c.Max {
				s.at = now.Add(RaiseAfter)
			}
			return ps
		}
		s.count = 0
	}
	s.count++
	s.at = now.Add(s.timer())
	return append(ps, s.send(now, s.probed))
}

// next is the size to try next; 0: the search has ended.
func (s *Search) next() int {
	firsts := []int{s.c.First &^ 3, s.c.Max, (usual - s.c.Headers) &^ 3}
	for ; s.tried < len(firsts); s.tried++ {
		if f := firsts[s.tried]; f > s.size && f < s.high {
			return f
		}
	}
	var known []int
	for _, m := range common {
		if f := (m - s.c.Headers) &^ 3; f > s.size && f < s.high {
			known = append(known, f)
		}
	}
	switch {
	case len(known) > 0:
		return known[len(known)/2]
	case s.high-s.size > grain && s.PathMTU() < usual:
		return (s.size + (s.high-s.size)/2) &^ 3
	}
	return 0
}

func (s *Search) send(now time.Time, size int) Probe {
	s.lastID++
	if len(s.out) == maxOut {
		s.out = append(s.out[:0], s.out[1:]...)
	}
	s.out = append(s.out, out{s.lastID, size, now})
	return Probe{s.lastID, size}
}

// failed takes a size as too big.
func (s *Search) failed(size int) {
	if size > s.size && size < s.high {
		s.high = size
	}
	if s.probed == size {
		s.probed, s.count = 0, 0
	}
}

// Refused tells that this end's own system did not take a probe.
func (s *Search) Refused(now time.Time, id uint32) {
	size := s.take(id)
	if size <= BaseSize {
		return
	}
	s.failed(size)
	if s.begun = false; s.state == Base && s.count == 0 || s.state == Searching {
		s.at = now
	}
}

func (s *Search) take(id uint32) (size int) {
	for i, o := range s.out {
		if o.id == id {
			s.out = append(s.out[:i], s.out[i+1:]...)
			return o.size
		}
	}
	return -1
}

// Acked tells that a probe was answered.
func (s *Search) Acked(now time.Time, id uint32) {
	size := s.take(id)
	if size < 0 {
		return
	}
	if q := &s.suspect; q.on && id >= q.first {
		switch {
		case size >= q.size:
			// It passes after all.
			*q = suspicion{}
			s.settled = now
		case size == 0:
			if q.small++; q.small >= MaxProbes && (q.next.IsZero() || q.decide.IsZero()) {
				q.next, q.decide = time.Time{}, now.Add(max(s.rtt/4, patience))
			}
		}
	}
	if size == 0 {
		s.small = true
		return
	}
	if s.state == Failed && size < BaseSize {
		return
	}
	if s.state == Base || s.state == Failed {
		// "BASE: … confirmed", Section 5.2: packets of the base size pass.
		if s.state == Base && s.begun && size == BaseSize {
			s.probed = s.next() // it was lost once
		}
		s.state, s.size, s.waits, s.at = Searching, BaseSize, 0, now
		s.count = min(s.probed, 1)
	}
	if size <= s.size {
		return
	}
	s.size = size
	if size >= s.high {
		s.high = s.c.Max + 4 // it was only late
	}
	if s.probed != 0 && s.probed <= size {
		s.probed, s.count = 0, 0
		if s.state == Searching {
			s.at = now
		}
	}
}

// Suspect tells that full packets seem to be lost: none has arrived for longer than
// that should take. The probes that follow tell a path that has become narrower from
// one that is only lossy, or gone.
func (s *Search) Suspect(now time.Time) {
	if s.suspect.on || s.state == Base || s.state == Failed || s.size <= MinSize || now.Sub(s.settled) < againAfter {
		return
	}
	s.suspect = suspicion{on: true, size: s.size, first: s.lastID + 1, next: now}
}

func (s *Search) advanceSuspicion(now time.Time, ps []Probe) []Probe {
	q := &s.suspect
	switch {
	case !q.on:
	case due(q.decide, now):
		if q.small >= MaxProbes {
			// The path does not take what it took: begin again from the base.
			s.c.First = 0
			s.begin(now)
			return ps
		}
		// Nothing comes back: what is wrong here is not a matter of size.
		*q = suspicion{}
		s.settled = now
	case due(q.next, now):
		ps = append(ps, s.send(now, q.size), s.send(now, 0))
		q.pairs++
		q.next = now.Add(max(s.rtt/8, 2*time.Millisecond))
		if q.pairs >= MaxProbes+2 {
			q.next, q.decide = time.Time{}, now.Add(2*s.timer())
		}
	}
	return ps
}
