package rival

import (
	"math"
	"time"
)

// Constants of RFC 9438, Section 4.
const (
	cubicC    = 0.4
	cubicBeta = 0.7
	// cubicAlpha is what Reno's increase is for the same share, Section 4.3.
	cubicAlpha = 3 * (1 - cubicBeta) / (1 + cubicBeta)
)

// cubic is CUBIC of RFC 9438, with an end of slow start as in HyStart++ (RFC
// 9406), without its phase of doubt.
type cubic struct {
	cwnd, threshold float64
	most            float64   // W_max
	epoch           time.Time // zero: begins with the next acknowledgement
	k               float64   // seconds
	origin          float64
	reno            float64 // W_est
	recovery        uint64  // packets up to this one belong to the last reduction
	srtt            time.Duration
	round           uint64 // ends when this packet is acknowledged
	shortest, lower time.Duration
	samples         int
}

func newCubic() *cubic { return &cubic{cwnd: initialWindow, threshold: math.Inf(1)} }

func (c *cubic) window() float64 { return c.cwnd }
func (c *cubic) rate() float64   { return math.Inf(1) }

func (c *cubic) acked(now time.Time, n news) {
	if n.roundTrip > 0 {
		if c.srtt == 0 {
			c.srtt = n.roundTrip
		}
		c.srtt += (n.roundTrip - c.srtt) / 8
	}
	if n.lost > 0 && n.newest > c.recovery {
		c.reduce(n)
		return
	}
	if n.roundTrip == 0 || n.packet.seq <= c.recovery {
		return // nothing grows while losses are mended
	}
	if c.cwnd < c.threshold {
		c.cwnd++
		c.slowStart(n)
		return
	}
	c.avoid(now)
}

// slowStart ends when the shortest round trip of a round has grown.
func (c *cubic) slowStart(n news) {
	if c.lower == 0 || n.roundTrip < c.lower {
		c.lower = n.roundTrip
	}
	c.samples++
	if n.packet.seq < c.round {
		return
	}
	if c.samples >= 8 && c.shortest > 0 && c.lower >= c.shortest+min(max(c.shortest/8, 4*time.Millisecond), 16*time.Millisecond) {
		c.threshold = c.cwnd
	}
	if c.shortest == 0 || c.lower < c.shortest {
		c.shortest = c.lower
	}
	c.round, c.lower, c.samples = n.sent, 0, 0
}

func (c *cubic) avoid(now time.Time) {
	if c.epoch.IsZero() {
		c.epoch, c.reno = now, c.cwnd
		c.k, c.origin = 0, c.cwnd
		if c.cwnd < c.most {
			c.k, c.origin = math.Cbrt((c.most-c.cwnd)/cubicC), c.most
		}
	}
	at := func(t float64) float64 { return c.origin + cubicC*math.Pow(t-c.k, 3) }
	t := now.Sub(c.epoch).Seconds()
	alpha := cubicAlpha
	if c.reno >= c.most {
		alpha = 1
	}
	c.reno += alpha / c.cwnd
	if at(t) < c.reno {
		c.cwnd = max(c.cwnd, c.reno)
		return
	}
	target := min(max(at(t+c.srtt.Seconds()), c.cwnd), 1.5*c.cwnd)
	c.cwnd += (target - c.cwnd) / c.cwnd
}

func (c *cubic) reduce(n news) {
	c.recovery, c.epoch = n.sent, time.Time{}
	// Fast convergence, Section 4.7.
	if c.cwnd < c.most {
		c.most = c.cwnd * (1 + cubicBeta) / 2
	} else {
		c.most = c.cwnd
	}
	c.cwnd = max(c.cwnd*cubicBeta, 2)
	c.threshold = c.cwnd
	if n.roundTrip == 0 { // silence: RFC 9438, Section 4.8
		c.cwnd, c.recovery = 1, 0
	}
}
