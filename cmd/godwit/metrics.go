package main

import (
	"fmt"
	"io"

	"github.com/godwit-net/godwit/client"
)

// metricsType is the media type of Prometheus' text format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// A metricWriter writes metrics of one end in that format.
type metricWriter struct {
	w      io.Writer
	prefix string // of all names
}

// head begins a metric.
func (m metricWriter) head(kind, name, help string) {
	fmt.Fprintf(m.w, "# HELP %s%s %s\n# TYPE %s%s %s\n", m.prefix, name, help, m.prefix, name, kind)
}

// metric is one without labels.
func (m metricWriter) metric(kind, name, help string, value any) {
	m.head(kind, name, help)
	m.sample(name, "", value)
}

// sample is a value of the metric that head has begun; labels are with their braces.
func (m metricWriter) sample(name, labels string, value any) {
	fmt.Fprintf(m.w, "%s%s%s %v\n", m.prefix, name, labels, value)
}

// writeMetrics writes a status in Prometheus' text format, version 0.0.4. The
// labels are names of encapsulations and triggers; no address or key is in it.
func writeMetrics(w io.Writer, s client.Status) {
	m := metricWriter{w, "godwit_client_"}
	connected := 0
	if s.State == "connected" {
		connected = 1
	}
	m.metric("gauge", "connected", "Whether the link is up and no registration runs.", connected)
	m.metric("counter", "sent_bytes_total", "Bytes of inner packets sent.", s.BytesSent)
	m.metric("counter", "received_bytes_total", "Bytes of inner packets received.", s.BytesReceived)
	m.metric("counter", "sent_packets_total", "ESP packets sent.", s.PacketsSent)
	m.metric("counter", "received_packets_total", "ESP packets received.", s.PacketsReceived)
	m.metric("counter", "dropped_packets_total", "Packets that were strange, replayed or damaged.", s.PacketsDropped)
	m.metric("counter", "resent_packets_total", "ESP packets sent again after a move.", s.PacketsResent)
	m.metric("counter", "ike_sent_total", "IKE messages sent.", s.IKESent)
	m.metric("counter", "ike_received_total", "IKE messages received.", s.IKEReceived)
	if p := s.Path; p != nil {
		m.head("gauge", "round_trip_seconds", "Round trip of the path in use.")
		m.sample("round_trip_seconds", fmt.Sprintf("{encapsulation=%q}", p.Encapsulation), p.RTTms/1000)
		down := p.Encapsulation
		if p.Down != nil {
			down = p.Down.Encapsulation
		}
		m.head("gauge", "path", "Encapsulations by which data leaves and comes.")
		m.sample("path", fmt.Sprintf("{up=%q,down=%q}", p.Encapsulation, down), 1)
	}
	if n := len(s.Registrations); n > 0 {
		r := s.Registrations[n-1]
		m.metric("counter", "registrations_total", "Registrations since the link was made.", r.Number)
		m.head("gauge", "last_gap_seconds", "Longest time without data in the last registration.")
		m.sample("last_gap_seconds", fmt.Sprintf("{direction=\"out\",trigger=%q}", r.Trigger), r.GapOutMs/1000)
		m.sample("last_gap_seconds", fmt.Sprintf("{direction=\"in\",trigger=%q}", r.Trigger), r.GapInMs/1000)
	}
}
