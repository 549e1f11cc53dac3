package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
		ok     bool
	}{
		{nil, 0, false},
		{[]float64{3}, 3, true},
		{[]float64{9, 1, 5}, 5, true},
		{[]float64{4, 1, 2, 9}, 3, true},
	} {
		before := append([]float64(nil), tt.values...)
		got, ok := Median(tt.values)
		if got != tt.want || ok != tt.ok {
			t.Errorf("Median(%v) = %v, %v", tt.values, got, ok)
		}
		for i := range before {
			if before[i] != tt.values[i] {
				t.Errorf("Median sorts what it is given: %v", tt.values)
			}
		}
	}
}

func TestCell(t *testing.T) {
	for _, tt := range []struct {
		v         float64
		ok, ratio bool
		want      string
	}{
		{1, false, false, "-"}, {math.Inf(1), true, true, "-"}, {math.NaN(), true, false, "-"},
		{0.346, true, false, "0.35"}, {9.996, true, false, "10.0"}, {12.34, true, false, "12.3"},
		{99.96, true, false, "100"}, {2048.5, true, false, "2048"}, {2.5, true, true, "2.50×"}, {-0.5, true, false, "-0.50"},
	} {
		if got := cell(tt.v, tt.ok, tt.ratio); got != tt.want {
			t.Errorf("cell(%v, %v, %v) = %q, want %q", tt.v, tt.ok, tt.ratio, got, tt.want)
		}
	}
}

// example is a run of two rounds with one peer that fails and one that is not
// there.
func example() *Report {
	down := func(peer string, round int, rate, cpu float64) Sample {
		return Sample{Peer: peer, Test: Down, Round: round, Values: map[Metric]float64{Rate: rate, CPU: cpu, ClientCPU: cpu / 4, ServerCPU: 3 * cpu / 4}}
	}
	return &Report{
		Start: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Rounds: 2, Bytes: 512e6,
		Machine: Machine{Kernel: "6.1", CPU: `A "B" <C>`, Cores: 2, Go: "go1.26", Congestion: "cubic", Load: "0 0 0"},
		Peers:   []Peer{{Name: "godwit", About: "this"}, {Name: "none", About: "no tunnel"}, {Name: "slow"}, {Name: "gone", Missing: "cannot be had"}},
		Samples: []Sample{
			down("godwit", 1, 390, 2), down("none", 1, 1500, 0.4), {Peer: "slow", Test: Down, Round: 1, Error: "it broke\nbadly"},
			down("godwit", 2, 410, 3), down("none", 2, 1700, 0.6), {Peer: "slow", Test: Down, Round: 2, Error: "it broke\nagain"},
			{Peer: "godwit", Test: Up, Round: 1, Error: "once"}, {Peer: "godwit", Test: Up, Round: 2, Values: map[Metric]float64{Rate: 300}, Note: "cut after 20s"},
		},
	}
}

func TestWriteTable(t *testing.T) {
	var b bytes.Buffer
	if err := example().WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{
		"Linux 6.1, go1.26, congestion control cubic for all",
		"medians of 2 rounds, 512 MB each transfer",
		"godwit 400 1.00× 0.62 1.88 2.50 1.00× - -",
		"none 1600 4.00× 0.12 0.38 0.50 0.20× - -",
		"slow failed",
		"godwit 300 1.00× - - - - - -", // one good round is enough
		"gone left out: cannot be had",
		"slow, down, round 2 failed: it broke",
		"godwit, up, round 2: cut after 20s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	for _, unwanted := range []string{"badly", "Eight streams", "NaN", "Inf"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("the table has %q:\n%s", unwanted, b.String())
		}
	}
}

func TestWriteTableWithoutGodwit(t *testing.T) {
	r := example()
	r.Peers, r.Samples = r.Peers[1:2], r.Samples[1:2]
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "×") || !strings.Contains(b.String(), "1500") {
		t.Errorf("a table without godwit:\n%s", b.String())
	}
}

func TestWriteJSON(t *testing.T) {
	var b bytes.Buffer
	if err := example().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if got := back.Medians[Down]["none"][Rate]; got != 1600 {
		t.Errorf("median in JSON: %v", got)
	}
	if len(back.Samples) != 8 || back.Machine.Congestion != "cubic" || back.Peers[3].Missing == "" {
		t.Errorf("JSON lost something: %+v", back)
	}
	if _, ok := back.Medians[Down]["slow"]; ok {
		t.Error("a peer that failed has medians")
	}
}

func TestWriteChart(t *testing.T) {
	r := example()
	r.Peers[1].Name = "<none>"
	for i := range r.Samples {
		if r.Samples[i].Peer == "none" {
			r.Samples[i].Peer = "<none>"
		}
	}
	var b bytes.Buffer
	if err := r.WriteChart(&b); err != nil {
		t.Fatal(err)
	}
	// It is well-formed whatever names hold, and has a bar for each figure.
	rects := map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(b.Bytes()))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			for _, a := range e.Attr {
				if a.Name.Local == "width" {
					rects[a.Value]++
				}
			}
		}
	}
	// The longest bar of each panel is as long as there is room: two panels
	// for down, one for up. The other two are a quarter and a fifth of it.
	const room = panelWidth - nameWidth - valueWidth
	if room != 254 || rects["254"] != 3 || rects["63"] != 1 || rects["50"] != 1 || len(rects) != 3 {
		t.Errorf("bars by length: %v", rects)
	}
	if !strings.Contains(b.String(), "prefers-color-scheme: dark") {
		t.Error("no colours for dark pages")
	}
}
