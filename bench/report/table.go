package report

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// A column is a metric of a table; a ratio column shows it divided by godwit's.
type column struct {
	head   string
	metric Metric
	ratio  bool
}

// A section is one part of the table: some columns of one test.
type section struct {
	test    Test
	title   string
	columns []column
}

var transferColumns = []column{
	{"MB/s", Rate, false}, {"/godwit", Rate, true},
	{"CPU s/GB client", ClientCPU, false}, {"server", ServerCPU, false}, {"both", CPU, false}, {"/godwit", CPU, true},
	{"peak MB client", ClientPeak, false}, {"server", ServerPeak, false},
}

var sections = []section{
	{Down, "One stream down", transferColumns},
	{Up, "One stream up", transferColumns},
	{Down8, "Eight streams down", transferColumns},
	{Up8, "Eight streams up", transferColumns},
	{Ping, "Ping-pong of 64 bytes", []column{
		{"round trips/s", RoundTrips, false}, {"/godwit", RoundTrips, true}}},
	{Busy, "Ping-pong of 64 bytes, alone and beside a download", []column{
		{"alone p50 ms", IdleP50, false}, {"p99", IdleP99, false},
		{"beside p50 ms", BusyP50, false}, {"p99", BusyP99, false}, {"p99/godwit", BusyP99, true},
		{"download MB/s", Rate, false}}},
	{First, "First byte of a new connection, in round trips of the path", []column{
		{"round trips", FirstByte, false}, {"/godwit", FirstByte, true}, {"path ms", Path, false}}},
	{Lossy, "One stream at 50 ms and 100 Mbit/s with a queue of 50 ms, Mbit/s, by what is lost", []column{
		{"down 0 %", LossyDown0, false}, {"1 %", LossyDown1, false}, {"3 %", LossyDown3, false}, {"10 %", LossyDown10, false},
		{"up 0 %", LossyUp0, false}, {"1 %", LossyUp1, false}, {"3 %", LossyUp3, false}, {"10 %", LossyUp10, false}}},
	{Fair, "Share of a link of 100 Mbit/s at 50 ms, down, by the queue in products of both and by whom it is shared with; 1 is fair", fairColumns("down")},
	{Fair, "The same up", fairColumns("up")},
	{Streams, "Memory of an idle stream", []column{
		{"KiB client", ClientStream, false}, {"server", ServerStream, false}}},
	{Clients, "An idle client at the server", []column{
		{"KiB each", ServerClient, false}, {"MB in all", ServerTotal, false}, {"CPU % for all", ServerIdle, false}}},
}

// Base is the peer that ratios are to.
const Base = "godwit"

// WriteTable writes the medians as text for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s, %d cores, Linux %s, %s, congestion control %s for all", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Machine.Congestion)
	fmt.Fprintf(b, "\n%s, medians of %d rounds, %d MB each transfer; load average before: %s\n",
		r.Start.UTC().Format("2006-01-02 15:04"), r.Rounds, r.Bytes/1e6, r.Machine.Load)
	for _, s := range sections {
		if r.ran(s.test) {
			fmt.Fprintf(b, "\n%s\n", s.title)
			r.writeSection(b, s)
		}
	}
	fmt.Fprintln(b)
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, p := range r.Peers {
		about := p.About
		if p.Missing != "" {
			about = "left out: " + p.Missing
		}
		fmt.Fprintf(t, "%s\t%s\n", p.Name, about)
	}
	t.Flush()
	for _, s := range r.Samples {
		if s.Note != "" {
			fmt.Fprintf(b, "%s, %s, round %d: %s\n", s.Peer, s.Test, s.Round, s.Note)
		}
		if s.Error != "" {
			fmt.Fprintf(b, "%s, %s, round %d failed: %s\n", s.Peer, s.Test, s.Round, firstLine(s.Error))
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func (r *Report) writeSection(w io.Writer, s section) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t")
	for _, c := range s.columns {
		fmt.Fprint(t, c.head, "\t")
	}
	fmt.Fprintln(t)
	for _, p := range r.Peers {
		var cells []string
		some := false
		for _, c := range s.columns {
			v, ok := r.Median(s.test, p.Name, c.metric)
			if c.ratio && ok {
				var base float64
				base, ok = r.Median(s.test, Base, c.metric)
				ok = ok && base != 0
				v /= base
			}
			some = some || ok
			cells = append(cells, cell(v, ok, c.ratio))
		}
		if some {
			fmt.Fprintf(t, "%s\t%s\t\n", p.Name, strings.Join(cells, "\t"))
		} else if r.Failed(s.test, p.Name) != "" {
			fmt.Fprintf(t, "%s\tfailed\t\n", p.Name)
		}
	}
	t.Flush()
}

// cell formats a figure with three digits that count.
func cell(v float64, ok, ratio bool) string {
	if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	var s string
	switch a := math.Abs(v); {
	case a >= 99.95:
		s = fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		s = fmt.Sprintf("%.1f", v)
	default:
		s = fmt.Sprintf("%.2f", v)
	}
	if ratio {
		s += "×"
	}
	return s
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
