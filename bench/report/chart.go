package report

import (
	"fmt"
	"io"
	"strings"
	"text/template"
)

// A chart is panels of horizontal bars, one bar for each peer.
type chart struct {
	Width, Height int
	BarHeight     int
	Title, Note   string
	Panels        []panel
}

type panel struct {
	X, Y  int
	Title string
	Bars  []bar
}

type bar struct {
	Y, Top             int // of the text's baseline, and of the bar's upper edge
	Name, Value, Class string
	X, Width, TextX    int
	NameX              int
}

// Sizes of the drawing, in pixels.
const (
	margin      = 24
	panelWidth  = 440
	nameWidth   = 130
	valueWidth  = 56
	rowHeight   = 22
	barHeight   = 14
	baseline    = 11 // of text beside a bar, below the bar's upper edge
	panelHead   = 30
	titleHeight = 64
)

var chartPanels = []struct {
	title  string
	test   Test
	metric Metric
}{
	{"CPU s per GB, one stream down (less is better)", Down, CPU},
	{"MB/s, one stream down (more is better)", Down, Rate},
	{"CPU s per GB, one stream up", Up, CPU},
	{"MB/s, one stream up", Up, Rate},
	{"CPU s per GB, eight streams down", Down8, CPU},
	{"MB/s, eight streams down", Down8, Rate},
	{"CPU s per GB, eight streams up", Up8, CPU},
	{"MB/s, eight streams up", Up8, Rate},
	{"Mbit/s of 100 down at 50 ms, nothing lost", Lossy, LossyDown0},
	{"Mbit/s of 100 up at 50 ms, nothing lost", Lossy, LossyUp0},
	{"down, 1 % lost", Lossy, LossyDown1},
	{"up, 1 % lost", Lossy, LossyUp1},
	{"down, 3 % lost", Lossy, LossyDown3},
	{"up, 3 % lost", Lossy, LossyUp3},
	{"down, 10 % lost", Lossy, LossyDown10},
	{"up, 10 % lost", Lossy, LossyUp10},
}

// The colours have enough contrast on white and on the dark grey that pages use;
// the style follows the reader's choice also inside an <img>.
var chartTemplate = template.Must(template.New("chart").Funcs(template.FuncMap{"x": escape}).Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-label="{{x .Title}}">
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.head { font-weight: 600 }
.note { font-size: 11px; fill: #57606a }
.name { text-anchor: end }
.bar { fill: #8c96a3 }
.base { fill: #0a7d5c }
.limit { fill: #c7cdd4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.note { fill: #9aa4af }
.bar { fill: #7d8894 }
.base { fill: #2fbf92 }
.limit { fill: #4b535d }
}
</style>
<text class="title" x="24" y="28">{{x .Title}}</text>
<text class="note" x="24" y="48">{{x .Note}}</text>
{{- range .Panels}}
<g transform="translate({{.X}} {{.Y}})">
<text class="head" x="0" y="14">{{x .Title}}</text>
{{- range .Bars}}
<text class="name" x="{{.NameX}}" y="{{.Y}}">{{x .Name}}</text>
<rect class="{{.Class}}" x="{{.X}}" y="{{.Top}}" width="{{.Width}}" height="{{$.BarHeight}}" rx="2"><title>{{x .Name}}: {{x .Value}}</title></rect>
<text class="value" x="{{.TextX}}" y="{{.Y}}">{{x .Value}}</text>
{{- end}}
</g>
{{- end}}
</svg>
`))

// WriteChart draws the medians of throughput and processor time as SVG, for
// tests and peers that gave some.
func (r *Report) WriteChart(w io.Writer) error {
	c := chart{
		Title: "godwit and its peers",
		Note: fmt.Sprintf("%s, %d cores shared by client, server, load and target; Linux %s, %s; medians of %d rounds",
			r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Congestion, r.Rounds),
		Width: 2*panelWidth + 3*margin, BarHeight: barHeight,
	}
	bottom := [2]int{titleHeight, titleHeight}
	for i, p := range chartPanels {
		d := panel{Title: p.title}
		most := 0.0
		for _, peer := range r.Peers {
			if v, ok := r.Median(p.test, peer.Name, p.metric); ok {
				most = max(most, v)
			}
		}
		for _, peer := range r.Peers {
			v, ok := r.Median(p.test, peer.Name, p.metric)
			if !ok || most <= 0 {
				continue
			}
			b := bar{
				Name: peer.Name, Value: cell(v, true, false), Class: "bar",
				Top:   panelHead + rowHeight*len(d.Bars),
				NameX: nameWidth - 8, X: nameWidth,
				Width: max(1, int(v/most*(panelWidth-nameWidth-valueWidth))),
			}
			b.Y = b.Top + baseline
			b.TextX = b.X + b.Width + 6
			switch {
			case strings.HasPrefix(peer.Name, Base):
				b.Class = "base"
			case peer.Name == "none":
				b.Class = "limit"
			}
			d.Bars = append(d.Bars, b)
		}
		if len(d.Bars) == 0 {
			continue
		}
		column := i % 2
		d.X, d.Y = margin+column*(panelWidth+margin), bottom[column]
		bottom[column] += panelHead + rowHeight*len(d.Bars) + margin
		c.Panels = append(c.Panels, d)
	}
	c.Height = max(bottom[0], bottom[1])
	if err := chartTemplate.Execute(w, c); err != nil {
		return fmt.Errorf("draw the chart: %w", err)
	}
	return nil
}

// escape makes text fit for XML, between tags and in attributes.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}
