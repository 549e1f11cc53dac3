// Package report holds what measurements gave, and shows it: medians, a table,
// JSON and a chart.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// A Metric names a figure; MB are 10^6 and GB 10^9 bytes of payload.
type Metric string

// The metrics.
const (
	Rate       Metric = "mb_per_s"
	ClientCPU  Metric = "client_cpu_s_per_gb"
	ServerCPU  Metric = "server_cpu_s_per_gb"
	CPU        Metric = "cpu_s_per_gb" // of both
	ClientPeak Metric = "client_peak_mb"
	ServerPeak Metric = "server_peak_mb"

	RoundTrips Metric = "round_trips_per_s"
	FirstByte  Metric = "first_byte_round_trips"
	Path       Metric = "path_round_trip_ms" // what FirstByte was divided by

	IdleP50 Metric = "idle_p50_ms"
	IdleP99 Metric = "idle_p99_ms"
	BusyP50 Metric = "busy_p50_ms"
	BusyP99 Metric = "busy_p99_ms"

	// Mbit/s of payload over a link that loses no, 1, 3 and 10 % of the packets.
	LossyDown0  Metric = "mbit_down_0"
	LossyDown1  Metric = "mbit_down_1"
	LossyDown3  Metric = "mbit_down_3"
	LossyDown10 Metric = "mbit_down_10"
	LossyUp0    Metric = "mbit_up_0"
	LossyUp1    Metric = "mbit_up_1"
	LossyUp3    Metric = "mbit_up_3"
	LossyUp10   Metric = "mbit_up_10"

	ClientStream Metric = "client_kib_per_idle_stream"
	ServerStream Metric = "server_kib_per_idle_stream"
	ServerClient Metric = "server_kib_per_idle_client"
	ServerTotal  Metric = "server_mb_with_idle_clients"
	ServerIdle   Metric = "server_idle_cpu_percent" // of one core
)

// A Test names a measurement.
type Test string

// The tests.
const (
	Down    Test = "down"
	Up      Test = "up"
	Down8   Test = "down8"
	Up8     Test = "up8"
	Ping    Test = "ping"
	Busy    Test = "busy"
	Streams Test = "streams"
	First   Test = "first"
	Clients Test = "clients"
	Lossy   Test = "lossy"
	Fair    Test = "fair"
)

// A Peer is a program that was measured, or could not be.
type Peer struct {
	Name    string `json:"name"`
	About   string `json:"about"`             // version and set-up
	Missing string `json:"missing,omitempty"` // why it was left out
}

// A Sample is what one test of one peer gave in one round.
type Sample struct {
	Peer   string             `json:"peer"`
	Test   Test               `json:"test"`
	Round  int                `json:"round"` // from 1
	Values map[Metric]float64 `json:"values,omitempty"`
	Note   string             `json:"note,omitempty"` // such as that the time limit cut it
	Error  string             `json:"error,omitempty"`
}

// A Machine is where the measurements ran.
type Machine struct {
	Kernel     string `json:"kernel"`
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Go         string `json:"go"`
	Congestion string `json:"congestion_control"` // of the kernel's TCP, in all namespaces
	Load       string `json:"load_average"`       // before the first round
}

// A Report is all that a run gave.
type Report struct {
	Start   time.Time `json:"start"`
	Commit  string    `json:"commit,omitempty"` // of godwit
	Machine Machine   `json:"machine"`
	Rounds  int       `json:"rounds"`
	Bytes   uint64    `json:"bytes"` // of each transfer
	Peers   []Peer    `json:"peers"`
	Samples []Sample  `json:"samples"`
	// Medians over the rounds, by test, peer and metric; WriteJSON fills it in.
	Medians map[Test]map[string]map[Metric]float64 `json:"medians"`
}

// Median gives the middle of values, or the mean of the two in the middle;
// false without any.
func Median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2, true
	}
	return s[len(s)/2], true
}

// Median gives the median of a metric over the rounds that gave one.
func (r *Report) Median(t Test, peer string, m Metric) (float64, bool) {
	var values []float64
	for _, s := range r.Samples {
		if v, ok := s.Values[m]; ok && s.Test == t && s.Peer == peer && s.Error == "" {
			values = append(values, v)
		}
	}
	return Median(values)
}

// Failed gives the error of a test that gave no figure in any round; "" if
// one gave some or it did not run.
func (r *Report) Failed(t Test, peer string) (why string) {
	for _, s := range r.Samples {
		if s.Test != t || s.Peer != peer {
			continue
		}
		if s.Error == "" {
			return ""
		}
		why = s.Error
	}
	return why
}

// ran tells whether there is anything to say about a test.
func (r *Report) ran(t Test) bool {
	return slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Test == t })
}

// WriteJSON writes the report with its medians.
func (r *Report) WriteJSON(w io.Writer) error {
	r.Medians = map[Test]map[string]map[Metric]float64{}
	for _, s := range r.Samples {
		for m := range s.Values {
			v, ok := r.Median(s.Test, s.Peer, m)
			if !ok {
				continue
			}
			if r.Medians[s.Test] == nil {
				r.Medians[s.Test] = map[string]map[Metric]float64{}
			}
			if r.Medians[s.Test][s.Peer] == nil {
				r.Medians[s.Test][s.Peer] = map[Metric]float64{}
			}
			r.Medians[s.Test][s.Peer][m] = v
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
