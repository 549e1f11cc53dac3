//go:build virtualtime

package handover

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

var writeDocs = flag.Bool("write-docs", false, "write the measured table into docs/mobility.md")

const (
	docsFile = "../../docs/mobility.md"
	docsFrom = "<!-- measured by lab/handover -->\n"
	docsTo   = "<!-- end -->\n"
)

// A figure is how long a receiver of data hears nothing beyond its usual
// spacing, in round trips.
type figure struct{ up, down float64 }

// A scenario is one row of the table.
type scenario struct {
	name    string
	prepare func(*trial)
	happen  func(*trial) // the event; sets trial.from
	after   bool         // silence counts from trial.from on: there was no network before
	watch   time.Duration
	detect  bool   // silence has to be noticed first: three round trips, 300 ms at least, are on top
	budget  figure // of the design
	// calm is the longest round trip for which no timer of the inner TCP may run
	// out, at 20 Mbit/s and more. With longer ones what is sent again may wait in a
	// stream for longer than the timer, which is three seconds.
	calm time.Duration
}

// A trial is one scenario at one round trip and one rate.
type trial struct {
	w    *world
	m    *mobile
	r    time.Duration
	from time.Time
}

func (x *trial) move() {
	x.m.host.Move("if0", x.w.cell)
}

func outage(d time.Duration) func(*trial) {
	return func(x *trial) {
		x.m.host.Detach("if0")
		time.Sleep(d)
		x.from = time.Now()
		x.m.host.Attach("if0", x.w.cell)
	}
}

func cellPasses(f lab.Firewall) func(*trial) {
	return func(x *trial) { x.w.cell.SetFirewall(f) }
}

// longest is the longest round trip in the table.
const longest = 500 * time.Millisecond

var scenarios = []scenario{
	{name: "move, UDP passes", calm: longest, happen: (*trial).move, budget: figure{0.1, 1.1}},
	{name: "move, only TCP passes", calm: 100 * time.Millisecond, prepare: cellPasses(lab.OnlyTCP), happen: (*trial).move, budget: figure{1.1, 2.1}},
	{name: "move, only TLS passes", calm: 100 * time.Millisecond, prepare: cellPasses(lab.OnlyTLS443), happen: (*trial).move, budget: figure{3.1, 3.1}},
	{name: "network back after 0.5 s", calm: longest, happen: outage(500 * time.Millisecond), after: true, budget: figure{0.6, 1.1}},
	{name: "network back after 5 s", happen: outage(5 * time.Second), after: true, budget: figure{0.6, 1.1}},
	{name: "network back after 1 min", happen: outage(time.Minute), after: true, budget: figure{0.6, 1.1}},
	{name: "network back after 10 min", happen: outage(10 * time.Minute), after: true, budget: figure{0.6, 1.1}},
	{name: "UDP blocked in place", calm: 100 * time.Millisecond, happen: func(x *trial) { x.w.wifi.SetFirewall(lab.OnlyTCP) }, detect: true, budget: figure{1.1, 2.1}},
	{name: "NAT forgets the mapping", calm: longest, happen: func(x *trial) {
		x.w.wifi.SetNAT(&lab.NAT{Outside: lab.Addrs("203.0.113.1"), ChangePort: true})
	}, budget: figure{0.1, 1.1}},
	{name: "second network up, first one lost", calm: longest, prepare: func(x *trial) {
		x.m.host.Attach("if1", x.w.cell)
		time.Sleep(5 * time.Second)
	}, happen: func(x *trial) { x.m.host.Detach("if0") }, budget: figure{0.1, 0.1}},
	{name: "second network preferred, first one stays", calm: longest, prepare: func(x *trial) {
		x.m.host.Attach("if1", x.w.cell)
		time.Sleep(5 * time.Second)
	}, happen: func(x *trial) { x.m.host.Prefer("if1") }, budget: figure{0.1, 0.1}},
	{name: "UDP passes again", calm: longest, prepare: func(x *trial) {
		x.w.cell.SetFirewall(lab.OnlyTCP)
		x.move()
		x.w.cell.SetFirewall(nil)
		// The better encapsulation is tried about 17 s after the move.
		time.Sleep(15500*time.Millisecond - max(10*x.r, time.Second) - max(8*x.r, time.Second))
	}, happen: func(*trial) {}, watch: 4 * time.Second, budget: figure{0.1, 0.1}},
}

// An outcome is what one trial gave.
type outcome struct {
	figure
	resent   uint64 // packets
	timeouts uint64 // of the inner TCP's retransmission timers, at both ends
}

// measure runs one scenario with a stream each way.
func (s *scenario) measure(t *testing.T, r time.Duration, mbit int) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, r)
		defer w.close()
		rate := mbit * 1e6 / 8
		l := lab.Link{Delay: r / 2, Rate: rate, Queue: max(256<<10, 2*int(float64(rate)*r.Seconds()))}
		x := &trial{w: w, m: w.join("laptop", 10), r: r}
		<-x.m.client.Ready()
		settle()

		// Half of the link: acknowledgements and headers need their part, and
		// what a pause held back shall be worked off. A stream's window
		// of 8 MiB has to do for the two round trips' worth that is under way in a move.
		speed := min(float64(rate)/2, 3<<20/r.Seconds())
		size := max(300, min(32<<10, int(speed*r.Seconds()/40)))
		// TCP has to open its window first, or it would send in bursts.
		p := pace{size, time.Duration(float64(size) / speed * float64(time.Second)), max(10*r, time.Second)}
		if s.prepare != nil {
			s.prepare(x)
		}
		near, far := x.m.pair(7)
		near2, far2 := x.m.pair(8)
		down, up := newFlow(t, "down", far, near, p), newFlow(t, "up", near2, far2, p)
		time.Sleep(p.warm)
		w.wifi.SetLink(l)
		w.cell.SetLink(l)
		time.Sleep(max(8*r, time.Second))

		before := x.m.client.Status()
		timeouts := before.TCPTimeouts + w.server.Status().TCPTimeouts
		event := time.Now()
		x.from = event
		s.happen(x)
		watch := max(8*r, 1500*time.Millisecond)
		if s.watch > 0 {
			watch = s.watch
		}
		time.Sleep(watch)
		after := x.m.client.Status()
		o.resent = after.PacketsResent - before.PacketsResent
		o.timeouts = after.TCPTimeouts + w.server.Status().TCPTimeouts - timeouts
		for f, to := range map[*flow]*float64{up: &o.up, down: &o.down} {
			usual := f.silence(event.Add(-max(4*r, 500*time.Millisecond)), event)
			silence := f.silence(event, event.Add(watch)) - usual
			if s.after {
				silence = f.first(x.from).Sub(x.from)
				if f.first(x.from).IsZero() {
					silence = watch
				}
			}
			*to = lab.Rounds(max(silence, 0), r)
		}
		for _, f := range []*flow{up, down} {
			f.end()
		}
		near.Close()
		far.Close()
		near2.Close()
		far2.Close()
	})
	return o
}

// TestTable measures each scenario at several round trips and rates.
func TestTable(t *testing.T) {
	if !*offload {
		return // what is reached is told of both ends as they are meant to be
	}
	rounds := []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, longest}
	rates := []int{1, 20, 200} // Mbit/s
	var docs bytes.Buffer
	fmt.Fprintf(&docs, "| event | budget | R = 20 ms | R = 100 ms | R = 500 ms |\n|---|---|---|---|---|\n")
	for i := range scenarios {
		s := &scenarios[i]
		t.Run(s.name, func(t *testing.T) {
			budget := s.budget
			extra := ""
			if s.detect {
				extra = " + detection"
			}
			fmt.Fprintf(&docs, "| %s | %.1f / %.1f%s |", s.name, budget.up, budget.down, extra)
			for i, r := range rounds {
				var worst figure
				for j, mbit := range rates {
					o := s.measure(t, r, mbit)
					t.Logf("R %-6v %3d Mbit/s: up %6.2f R, down %6.2f R; %d packets sent again, %d timeouts", r, mbit, o.up, o.down, o.resent, o.timeouts)
					if mbit > 1 {
						worst.up, worst.down = max(worst.up, o.up), max(worst.down, o.down)
					}
					if o.timeouts > 0 && r <= s.calm && mbit > 1 {
						t.Errorf("R %v, %d Mbit/s: %d timers of the inner TCP ran out", r, mbit, o.timeouts)
					}
					// Goroutines that run in another order move it a little.
					limit := reached[s.name][3*i+j]
					limit.up, limit.down = max(1.2*limit.up+0.2, budget.up), max(1.2*limit.down+0.2, budget.down)
					if r > max(s.calm, rounds[0]) {
						// Whether a timer runs out may hang on a hair.
						once := lab.Rounds(400*time.Millisecond, r)
						limit.up, limit.down = limit.up+once, limit.down+once
					}
					if o.up > limit.up || o.down > limit.down {
						t.Errorf("R %v, %d Mbit/s: silence of %.2f R up and %.2f R down, want %.2f and %.2f", r, mbit, o.up, o.down, limit.up, limit.down)
					}
				}
				fmt.Fprintf(&docs, " %.2f / %.2f |", worst.up, worst.down)
			}
			fmt.Fprintln(&docs)
		})
	}
	t.Logf("silence up / down in round trips, the worst of 20 and 200 Mbit/s:\n%s", docs.String())
	if *writeDocs {
		b, err := os.ReadFile(docsFile)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, ok := bytes.Cut(b, []byte(docsFrom))
		_, tail, ok2 := bytes.Cut(rest, []byte(docsTo))
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the table", docsFile)
		}
		b = append(append(append(append(bytes.Clone(head), docsFrom...), docs.Bytes()...), docsTo...), tail...)
		if err := os.WriteFile(docsFile, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
