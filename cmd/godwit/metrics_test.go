package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
)

func TestWriteMetrics(t *testing.T) {
	var out bytes.Buffer
	writeMetrics(&out, exampleStatus())
	for _, want := range []string{
		"\ngodwit_client_connected 1\n", "\ngodwit_client_sent_bytes_total 999\n", "\ngodwit_client_registrations_total 2\n",
		"\ngodwit_client_round_trip_seconds{encapsulation=\"udp\"} 0.0215\n",
		"\ngodwit_client_path{up=\"udp\",down=\"udp\"} 1\n",
		"\ngodwit_client_last_gap_seconds{direction=\"in\",trigger=\"address\"} 0\n",
	} {
		if !strings.Contains("\n"+out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "192.168.1.7") {
		t.Error("addresses do not belong there")
	}
}

func exampleServerStatus() server.Status {
	moved := server.Kind{Trigger: "address", Encapsulation: "tcp", Verdict: "napt"}
	return server.Status{
		Clients: []server.ClientStatus{
			{Name: "laptop", Connected: true, Inner: []string{"10.143.0.2"}, KeyExchange: "X25519", Encapsulation: "tcp", Remote: "203.0.113.9:61001", Verdict: "napt", BytesSent: 999, BytesReceived: 314_572_800},
			{Name: "phone", Verdict: "none"},
		},
		TCPTimeouts: 1,
		Totals: server.Totals{
			Connected: 1, Remembered: 1, TwoWays: 1, Connections: 3, BytesSent: 999, BytesReceived: 314_572_800, PacketsSent: 12, PacketsReceived: 220_001,
			PacketsResent: 2, BytesResent: 2800, Rebound: 4, Unused: 5,
			Registrations: []server.Count{{Kind: moved, Count: 7}},
			GapsOut:       server.Gaps{Buckets: [len(server.GapBounds) + 1]uint64{0: 1, 3: 1, len(server.GapBounds): 1}, Count: 3, Seconds: 40.5},
			Drops:         server.Drops{UnknownSA: 10, Replayed: 11, Damaged: 12, Spoofed: 13, TooBig: 14, QueueFull: 15},
		},
		Registrations: []server.Registration{
			{Client: "laptop", Number: 2, Kind: moved, Started: time.Date(2026, 7, 1, 12, 0, 0, 0, time.Local), Moved: true, ResentBytes: 1400, GapOutMs: 43},
		},
	}
}

func TestServerMetrics(t *testing.T) {
	d := &config.ServerDir{Config: config.Server{Metrics: netip.MustParseAddrPort("127.0.0.1:0")}}
	if none, err := listenMetrics(&config.ServerDir{}, exampleServerStatus, slog.New(slog.DiscardHandler)); none != nil || err != nil {
		t.Errorf("metrics without the setting: %v, %v", none, err)
	}
	c, err := listenMetrics(d, exampleServerStatus, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get("http://" + c.at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Header.Get("Content-Type") != metricsType {
		t.Errorf("%v, %v", resp.Header, err)
	}
	for _, want := range []string{
		"godwit_server_clients_connected 1", "godwit_server_clients_remembered 1", "godwit_server_clients_two_ways 1", "godwit_server_connections_total 3", "godwit_server_replayed_bytes_total 2800",
		"godwit_server_received_bytes_total 314572800", "godwit_server_rebindings_total 4", "godwit_server_registrations_unused_total 5",
		`godwit_server_registrations_total{trigger="address",encapsulation="tcp",verdict="napt"} 7`,
		`godwit_server_gap_seconds_bucket{direction="out",le="0.05"} 1`, `godwit_server_gap_seconds_bucket{direction="out",le="0.1"} 2`,
		`godwit_server_gap_seconds_bucket{direction="out",le="30"} 2`, `godwit_server_gap_seconds_bucket{direction="out",le="+Inf"} 3`,
		`godwit_server_gap_seconds_sum{direction="out"} 40.5`, `godwit_server_gap_seconds_count{direction="in"} 0`,
		`godwit_server_dropped_packets_total{reason="unknown_sa"} 10`, `godwit_server_dropped_packets_total{reason="queue_full"} 15`,
	} {
		if !strings.Contains("\n"+string(body), "\n"+want+"\n") {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	for _, secret := range []string{"laptop", "203.0.113.9", "10.143.0.2"} {
		if strings.Contains(string(body), secret) {
			t.Errorf("%s does not belong there", secret)
		}
	}
	// Nothing but numbers is given away there.
	for _, path := range []string{"/status", "/"} {
		resp, err := hc.Get("http://" + c.at + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestPrintServerStatus(t *testing.T) {
	var out bytes.Buffer
	if err := printServerStatus(&out, exampleServerStatus()); err != nil {
		t.Fatal(err)
	}
	want := `clients     1 connected, 1 remembered
sent        999 B in 12 packets
received    314.6 MB in 220001 packets
sent again  2.8 kB in 2 packets
dropped     10 of no client, 11 replayed, 12 damaged, 13 spoofed, 14 too big, 15 as a queue was full

CLIENT  STATE       BY   FROM               VERDICT  SENT   RECEIVED  KEYS
laptop  connected   tcp  203.0.113.9:61001  napt     999 B  314.6 MB  X25519
phone   remembered  -    -                  none     0 B    0 B       -

MOVE      TIME                 TRIGGER  BY   VERDICT  GAP OUT/IN   SENT AGAIN
laptop 2  2026-07-01 12:00:00  address  tcp  napt     43.0 ms / -  1.4 kB
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
