package main

import (
	"fmt"
	"io"

	"github.com/godwit-net/godwit/client"
)

// metricsType is the media type of Prometheus' text format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// writeMetrics writes a status in Prometheus' text format, version 0.0.4. The
// labels are names of encapsulations and triggers; no address or key is in it.
func writeMetrics(w io.Writer, s client.Status) {
	metric := func(kind, name, help string, value any) {
		fmt.Fprintf(w, "# HELP godwit_client_%s %s\n# TYPE godwit_client_%s %s\ngodwit_client_%s %v\n", name, help, name, kind, name, value)
	}
	connected := 0
	if s.State == "connected" {
		connected = 1
	}
	metric("gauge", "connected", "Whether the link is up and no registration runs.", connected)
	metric("counter", "sent_bytes_total", "Bytes of inner packets sent.", s.BytesSent)
	metric("counter", "received_bytes_total", "Bytes of inner packets received.", s.BytesReceived)
	metric("counter", "sent_packets_total", "ESP packets sent.", s.PacketsSent)
	metric("counter", "received_packets_total", "ESP packets received.", s.PacketsReceived)
	metric("counter", "dropped_packets_total", "Packets that were strange, replayed or damaged.", s.PacketsDropped)
	metric("counter", "resent_packets_total", "ESP packets sent again after a move.", s.PacketsResent)
	metric("counter", "ike_sent_total", "IKE messages sent.", s.IKESent)
	metric("counter", "ike_received_total", "IKE messages received.", s.IKEReceived)
	if p := s.Path; p != nil {
		fmt.Fprintf(w, "# HELP godwit_client_round_trip_seconds Round trip of the path in use.\n# TYPE godwit_client_round_trip_seconds gauge\n"+
			"godwit_client_round_trip_seconds{encapsulation=%q} %g\n", p.Encapsulation, p.RTTms/1000)
	}
	if n := len(s.Registrations); n > 0 {
		r := s.Registrations[n-1]
		metric("counter", "registrations_total", "Registrations since the link was made.", r.Number)
		fmt.Fprint(w, "# HELP godwit_client_last_gap_seconds Longest time without data in the last registration.\n# TYPE godwit_client_last_gap_seconds gauge\n")
		fmt.Fprintf(w, "godwit_client_last_gap_seconds{direction=\"out\",trigger=%q} %g\n", r.Trigger, r.GapOutMs/1000)
		fmt.Fprintf(w, "godwit_client_last_gap_seconds{direction=\"in\",trigger=%q} %g\n", r.Trigger, r.GapInMs/1000)
	}
}
