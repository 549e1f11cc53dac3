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
	m := metricWriter{w, "godwit_server_"}
	t := s.Totals
	m.metric("gauge", "clients_connected", "Clients that are connected.", t.Connected)
	m.metric("gauge", "clients_remembered", "Clients without a connection whose streams wait for them.", t.Remembered)
	m.metric("gauge", "clients_two_ways", "Clients whose data comes by another encapsulation than the server's leaves by.", t.TwoWays)
	m.metric("counter", "connections_total", "IKE SAs made with clients.", t.Connections)
	m.metric("counter", "sent_bytes_total", "Bytes of inner packets sent to clients.", t.BytesSent)
	m.metric("counter", "received_bytes_total", "Bytes of inner packets received from clients.", t.BytesReceived)
	m.metric("counter", "sent_packets_total", "ESP packets sent.", t.PacketsSent)
	m.metric("counter", "received_packets_total", "ESP packets received.", t.PacketsReceived)
	m.metric("counter", "replayed_bytes_total", "Bytes of ESP packets sent again after moves.", t.BytesResent)
	m.metric("counter", "replayed_packets_total", "ESP packets sent again after moves.", t.PacketsResent)
	m.metric("counter", "tcp_timeouts_total", "Retransmission timers that ran out in the TCP inside.", s.TCPTimeouts)

	m.head("counter", "registrations_total", "Registrations of clients that have ended.")
	for _, r := range t.Registrations {
		m.sample("registrations_total", fmt.Sprintf("{trigger=%q,encapsulation=%q,verdict=%q}", r.Trigger, r.Encapsulation, r.Verdict), r.Count)
	}
	m.metric("counter", "registrations_unused_total", "Registration messages that were late, old or wrong.", t.Unused)
	m.metric("counter", "rebindings_total", "Times that a client's address changed without a registration.", t.Rebound)

	m.head("histogram", "gap_seconds", "Longest time without data in moves, by direction from the server.")
	for _, g := range []struct {
		direction string
		gaps      server.Gaps
	}{{"out", t.GapsOut}, {"in", t.GapsIn}} {
		sum := uint64(0)
		for i, le := range server.GapBounds {
			sum += g.gaps.Buckets[i]
			m.sample("gap_seconds_bucket", fmt.Sprintf("{direction=%q,le=\"%g\"}", g.direction, le), sum)
		}
		m.sample("gap_seconds_bucket", fmt.Sprintf("{direction=%q,le=\"+Inf\"}", g.direction), g.gaps.Count)
		m.sample("gap_seconds_sum", fmt.Sprintf("{direction=%q}", g.direction), g.gaps.Seconds)
		m.sample("gap_seconds_count", fmt.Sprintf("{direction=%q}", g.direction), g.gaps.Count)
	}

	m.head("counter", "dropped_packets_total", "Packets dropped, by reason.")
	for _, d := range []struct {
		reason string
		n      uint64
	}{
		{"unknown_sa", t.Drops.UnknownSA}, {"replayed", t.Drops.Replayed}, {"damaged", t.Drops.Damaged},
		{"spoofed", t.Drops.Spoofed}, {"too_big", t.Drops.TooBig}, {"queue_full", t.Drops.QueueFull},
	} {
		m.sample("dropped_packets_total", fmt.Sprintf("{reason=%q}", d.reason), d.n)
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
