package report

import "fmt"

// Whom a link is shared with in the test fair: one stream of the kernel's TCP with
// that congestion control, one of each, or another client of the same peer.
const (
	Cubic  = "cubic"
	BBR    = "bbr"
	Both   = "both"
	Itself = "itself"
)

// A FairCase is one measurement of the test fair.
type FairCase struct {
	Do     string  // down or up
	Queue  float64 // before the link, in products of its rate and round trip
	Beside string
}

// FairCases are all of them.
func FairCases() (all []FairCase) {
	for _, do := range []string{"down", "up"} {
		for _, queue := range []float64{0.5, 1, 2} {
			for _, beside := range []string{Cubic, BBR, Both, Itself} {
				all = append(all, FairCase{do, queue, beside})
			}
		}
	}
	return all
}

// Metric is the share that the peer takes; 1 is fair.
func (c FairCase) Metric() Metric {
	return Metric(fmt.Sprintf("share_%s_queue_%g_beside_%s", c.Do, c.Queue, c.Beside))
}

// Use is the part of the link that all take together, from 0 to 1.
func (c FairCase) Use() Metric {
	return Metric(fmt.Sprintf("use_%s_queue_%g_beside_%s", c.Do, c.Queue, c.Beside))
}

// fairColumns are the shares in one direction.
func fairColumns(do string) (columns []column) {
	for _, c := range FairCases() {
		if c.Do != do {
			continue
		}
		head := c.Beside
		if c.Beside == Cubic { // the first with this queue
			head = fmt.Sprintf("%g: %s", c.Queue, c.Beside)
		}
		columns = append(columns, column{head, c.Metric(), false})
	}
	return columns
}
