package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
)

// writeServerMetrics writes a server's status in Prometheus' text format, version
// 0.0.4. No name, address or key of a client is in it, and how many lines there are
// does not depend on what clients do.
func writeServerMetrics(w io.Writer, s server.Status) {
	head := func(kind, name, help string) {
		fmt.Fprintf(w, "# HELP godwit_server_%s %s\n# TYPE godwit_server_%s %s\n", name, help, name, kind)
	}
	metric := func(kind, name, help string, value any) {
		head(kind, name, help)
		fmt.Fprintf(w, "godwit_server_%s %v\n", name, value)
	}
	t := s.Totals
	metric("gauge", "clients_connected", "Clients that are connected.", t.Connected)
	metric("gauge", "clients_remembered", "Clients without a connection whose streams wait for them.", t.Remembered)
	metric("counter", "connections_total", "IKE SAs made with clients.", t.Connections)
	metric("counter", "sent_bytes_total", "Bytes of inner packets sent to clients.", t.BytesSent)
	metric("counter", "received_bytes_total", "Bytes of inner packets received from clients.", t.BytesReceived)
	metric("counter", "sent_packets_total", "ESP packets sent.", t.PacketsSent)
	metric("counter", "received_packets_total", "ESP packets received.", t.PacketsReceived)
	metric("counter", "replayed_bytes_total", "Bytes of ESP packets sent again after moves.", t.BytesResent)
	metric("counter", "replayed_packets_total", "ESP packets sent again after moves.", t.PacketsResent)
	metric("counter", "tcp_timeouts_total", "Retransmission timers that ran out in the TCP inside.", s.TCPTimeouts)

	head("counter", "registrations_total", "Registrations of clients that have ended.")
	for _, r := range t.Registrations {
		fmt.Fprintf(w, "godwit_server_registrations_total{trigger=%q,encapsulation=%q,verdict=%q} %d\n", r.Trigger, r.Encapsulation, r.Verdict, r.Count)
	}
	metric("counter", "registrations_unused_total", "Registration messages that were late, old or wrong.", t.Unused)
	metric("counter", "rebindings_total", "Times that a client's address changed without a registration.", t.Rebound)

	head("histogram", "gap_seconds", "Longest time without data in moves, by direction from the server.")
	for _, g := range []struct {
		direction string
		gaps      server.Gaps
	}{{"out", t.GapsOut}, {"in", t.GapsIn}} {
		sum := uint64(0)
		for i, le := range server.GapBounds {
			sum += g.gaps.Buckets[i]
			fmt.Fprintf(w, "godwit_server_gap_seconds_bucket{direction=%q,le=\"%g\"} %d\n", g.direction, le, sum)
		}
		fmt.Fprintf(w, "godwit_server_gap_seconds_bucket{direction=%q,le=\"+Inf\"} %d\n", g.direction, g.gaps.Count)
		fmt.Fprintf(w, "godwit_server_gap_seconds_sum{direction=%q} %g\n", g.direction, g.gaps.Seconds)
		fmt.Fprintf(w, "godwit_server_gap_seconds_count{direction=%q} %d\n", g.direction, g.gaps.Count)
	}

	head("counter", "dropped_packets_total", "Packets dropped, by reason.")
	for _, d := range []struct {
		reason string
		n      uint64
	}{
		{"unknown_sa", t.Drops.UnknownSA}, {"replayed", t.Drops.Replayed}, {"damaged", t.Drops.Damaged},
		{"spoofed", t.Drops.Spoofed}, {"too_big", t.Drops.TooBig}, {"queue_full", t.Drops.QueueFull},
	} {
		fmt.Fprintf(w, "godwit_server_dropped_packets_total{reason=%q} %d\n", d.reason, d.n)
	}
}

// serverAnswers is what a server's control socket answers.
func serverAnswers(status func() server.Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, status()) })
	mux.Handle("GET /metrics", metricsOf(status))
	return mux
}

func metricsOf(status func() server.Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metricsType)
		writeServerMetrics(w, status())
	})
}

// listenServerControl answers godwit server status; nil where that cannot be, which
// is no reason not to serve.
func listenServerControl(socket string, status func() server.Status, logger *slog.Logger) *control {
	c, err := listenControl("server", socket, serverAnswers(status))
	if err != nil {
		logger.Warn("godwit server status will not work", slog.Any("err", err))
		return nil
	}
	return c
}

// listenMetrics answers Prometheus at the address that the settings name; nil if
// they name none.
func listenMetrics(d *config.ServerDir, status func() server.Status, logger *slog.Logger) (*control, error) {
	at := d.Config.Metrics
	if !at.IsValid() {
		return nil, nil
	}
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, listenError(err, at.String(), "metrics in server.toml")
	}
	if !at.Addr().IsLoopback() {
		logger.Warn("anybody who reaches it can read the metrics", slog.String("metrics", at.String()))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsOf(status))
	return serveControl(ln, mux), nil
}
